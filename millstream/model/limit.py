"""Limits of a workflow: how many of its runs go on at a time, or begin in a period, by a key.

A limit counts the runs whose key has the same value: the tenant, an argument, or all runs where
there is no key. What a limit is called follows from where it is declared, unless it has a name:
workflows whose limits have one name share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from millstream.errors import UsageError

#: Longer values, and those that cannot be printed, are counted by their digest.
_LONGEST = 100
#: A workflow may have so many.
MOST_LIMITS = 8
_ARGUMENTS = "arguments."


class Asked(NamedTuple):
    """What one run asks of one limit."""

    #: Names what is counted: the limit, and the value of its key.
    limit: str
    most: int
    #: 0: so many at a time; else so many that begin in this many milliseconds.
    period_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What all workers of a queue may do together: so many at once, so many in ``per`` seconds."""

    concurrency: int | None = None
    rate: int | None = None
    per: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many runs at a time (``concurrency``), or so many that begin in ``per`` seconds.

    ``key`` is ``tenant``, ``arguments.NAME`` (with further dots into it), or None: then all runs of
    the workflow are counted together. A run without a value is counted with the others without.
    """

    key: str | None = None
    concurrency: int | None = None
    rate: int | None = None
    per: float = 1.0
    #: Limits of one name are one limit, whatever workflow declares them.
    name: str | None = None

    def __post_init__(self) -> None:
        counts = [count for count in (self.concurrency, self.rate) if count is not None]
        if len(counts) != 1 or not 1 <= counts[0] <= 1_000_000:
            raise UsageError("a limit has a concurrency or a rate, of 1 to a million")
        if not 0.001 <= self.per <= 31 * 86400:
            raise UsageError(f"a limit's period must be seconds up to 31 days, not {self.per!r}")
        if self.key not in {None, "tenant"} and not self._path:
            raise UsageError(f"a limit's key is tenant or arguments.NAME, not {self.key!r}")
        if self.name is not None and not (self.name.isprintable() and self.name):
            raise UsageError(f"a limit's name must be a name, not {self.name!r}")

    def asked(self, workflow: str, tenant: str | None, arguments: Mapping[str, Any]) -> Asked:
        """Return what a run asks of this limit."""
        value = tenant if self.key == "tenant" else _found(arguments, self._path)
        period_ms = 0 if self.rate is None else max(1, round(self.per * 1000))
        name = self.name or f"{workflow}/{self.key or ''}/{'runs' if period_ms == 0 else 'rate'}"
        return Asked(f"{name}:{_text(value)}", self.concurrency or self.rate or 1, period_ms)

    @property
    def _path(self) -> tuple[str, ...]:
        key = self.key or ""
        if not key.startswith(_ARGUMENTS) or not all(key.split(".")):
            return ()
        return tuple(key.removeprefix(_ARGUMENTS).split("."))


def _found(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = arguments if path else None
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    """Return what stands for a value: the same for equal ones, and bounded."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
    if len(text) <= _LONGEST and text.isprintable():
        return text
    return "#" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
