"""What a client needs of whoever traces: a span around an enqueue, and its context for the run.

It knows no tracing library; `millstream.telemetry.tracing.Tracing` is one that fits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import msgspec

from millstream.client.handles import Enqueue


class TracesEnqueue(Protocol):
    """Makes the span of an enqueue."""

    def enqueuing(
        self, workflow: str, queue: str, parent: str | None = None
    ) -> AbstractContextManager[str]:
        """Trace what happens inside; yields the ``traceparent`` for the run, "" for none."""


def traced(tracing: TracesEnqueue, within: ExitStack, asked: Enqueue) -> Enqueue:
    """Return what is asked for with its place in a trace, whose span ends with ``within``."""
    entered = tracing.enqueuing(asked.workflow, asked.queue, asked.trace)
    return msgspec.structs.replace(asked, trace=within.enter_context(entered) or None)
