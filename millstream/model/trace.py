"""Where something stands in a trace: the W3C trace context, and contexts that follow from others.

What happens inside a run gets its place by derivation and not by chance: whoever knows the context
of a take can say the context of each of its steps, in another thread or after a crash, and nobody
has to remember which spans are open. It knows no tracing library.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

#: Version 00, as every reader understands it. A later version may say more behind it.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class SpanContext(NamedTuple):
    """The name of a span: which trace it belongs to, which one it is, whether it is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        """The value of a ``traceparent``."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def under(self, *names: str) -> SpanContext:
        """Return the context of what has these names below this span; always the same."""
        return self._replace(span_id=_digest(8, self.trace_id, self.span_id, *names))


class Place(NamedTuple):
    """Where something stands in a trace, and under what, each as a ``traceparent``."""

    trace: str
    parent: str | None = None


def parsed(traceparent: str | None) -> SpanContext | None:
    """Return what a ``traceparent`` says; None when it says nothing that can be used."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None

    version, trace_id, span_id, flags = found.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None

    return SpanContext(trace_id, span_id, bool(int(flags, 16) & 1))


def root_of(*names: str) -> SpanContext:
    """Return the context of what begins a trace by itself; always the same for the same names."""
    return SpanContext(_digest(16, *names), _digest(8, *names))


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the id of the trace alone, for a log line or an exemplar."""
    found = parsed(traceparent)
    return None if found is None else found.trace_id


def _digest(size: int, *names: str) -> str:
    found = hashlib.blake2b("\n".join(names).encode(), digest_size=size).hexdigest()
    # All zeros means "none": it is as unlikely as any other, and must not be one.
    return found if int(found, 16) else f"{1:0{2 * size}x}"
