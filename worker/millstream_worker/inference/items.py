"""One input of a call on its way through a queue.

An item is shared by all who asked for the same; it is dropped when the last of them has given up.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import ItemTooLarge
from millstream.model.inference import Priority

#: How long an item of a class stands back behind one of the highest that came later. Bounded, so
#: that no class starves another.
_LAG_S = {Priority.HIGH: 0.0, Priority.NORMAL: 5.0, Priority.LOW: 60.0}

#: Links that one span may have.
_MOST_TRACES = 32
_numbers = itertools.count()


@dataclass(slots=True, eq=False, kw_only=True)
class Item:
    """An input, as it waits."""

    #: What the backend made of the input.
    payload: Any
    #: In the backend's tokens.
    length: int
    #: Items leave together only when this is equal: the options that change what is computed.
    variant: tuple[tuple[str, Any], ...]
    queued: float
    deadline: float
    priority: Priority
    answer: asyncio.Future[Any]
    #: Under which it can be found by those who ask for the same; empty: not at all.
    digest: str = ""
    #: How many still want the answer.
    wanted: int = 1
    #: When it was last given to a device.
    launched: float = 0.0
    #: How often its device died while it was computed.
    deaths: int = 0
    #: It ran out of memory alone once already.
    starved: bool = False
    #: Where the call that asked first stands in a trace.
    trace: str | None = None
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def rank(self) -> tuple[float, int]:
        """What the queue is sorted by: the most urgent first."""
        return min(self.queued + _LAG_S[self.priority], self.deadline), self.number

    @property
    def dropped(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self.wanted <= 0 or self.answer.done()

    def finish(self, value: Any) -> None:
        """Give the answer to all who wait."""
        if not self.answer.done():
            self.answer.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Give the same failure to all who wait."""
        if not self.answer.done():
            self.answer.set_exception(error)
            # Whoever gave up does not look: that is no mistake.
            self.answer.exception()


def traces_of(items: Iterable[Item]) -> tuple[str, ...] | None:
    """Return where the calls stand that a batch is computed for, at most so many of them."""
    found = dict.fromkeys(item.trace for item in items if item.trace is not None)
    return tuple(itertools.islice(found, _MOST_TRACES)) or None


def too_large(model: str, length: int, why: str) -> ItemTooLarge:
    """Return the error of an input that can never be computed here."""
    return ItemTooLarge(
        f"an input of {length:,} tokens is too large for model {model!r}: {why}; split it",
        cause="ItemTooLarge",
    )
