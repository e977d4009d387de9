"""One input of a call on its way through a queue.

An item is shared by all who asked for the same; it is dropped when the last of them has given up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millstream.errors import ItemTooLarge
from millstream.model.inference import Priority

if TYPE_CHECKING:
    from millstream_worker.inference.waiting import Waiter

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
    #: Under which it can be found by those who ask for the same; None: not at all.
    place: Any = None
    #: The calls that still want the answer.
    waiters: list[Waiter] = field(default_factory=list)
    #: When it was last given to a device.
    launched: float = 0.0
    #: How often its device died while it was computed.
    deaths: int = 0
    #: It ran out of memory alone once already, with all that may be had.
    starved: bool = False
    #: Bytes of room in which it found too little alone: it waits until there are more.
    refused_at: int = -1
    #: Since when it waits for room.
    starving_since: float = 0.0
    #: What a continuous model has written of it, should it have to go on elsewhere.
    written: list[int] = field(default_factory=list)
    #: How often a continuous model failed while it had a slot, and it may have been the reason.
    doubts: int = 0
    number: int = field(default_factory=_numbers.__next__)
    #: What the queue is sorted by: the most urgent first.
    rank: tuple[float, int] = field(init=False)
    #: Whether there is an answer or a failure, and which.
    done: bool = False
    value: Any = None
    #: Called when it has ended.
    on_done: Callable[[Item], None] | None = None

    def __post_init__(self) -> None:
        self.rank = min(self.queued + _LAG_S[self.priority], self.deadline), self.number

    @property
    def dropped(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self.done or not self.waiters

    @property
    def heard(self) -> bool:
        """Whether somebody listens to what is written of it."""
        return any(waiter.on_text is not None for waiter in self.waiters)

    def say(self, text: str) -> None:
        """Let those who listen have what was written."""
        # A call that asked for it twice waits twice, and knows both places.
        for waiter in dict.fromkeys(self.waiters):
            waiter.say(self, text)

    def finish(self, value: Any) -> None:
        """Give the answer to all who wait."""
        self._end(value, None)

    def fail(self, error: BaseException) -> None:
        """Give the same failure to all who wait."""
        self._end(None, error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self.value = True, value
        if self.on_done is not None:
            self.on_done(self)
        for waiter in self.waiters:
            waiter.ended(error)


def traces_of(items: Iterable[Item]) -> tuple[str, ...] | None:
    """Return where the calls stand that a batch is computed for, at most so many of them."""
    places = [waiter.place for item in items for waiter in item.waiters]
    found = dict.fromkeys(place.trace for place in places if place is not None)
    return tuple(itertools.islice(found, _MOST_TRACES)) or None


def too_large(model: str, length: int, why: str) -> ItemTooLarge:
    """Return the error of an input that can never be computed here."""
    return ItemTooLarge(
        f"an input of {length:,} tokens is too large for model {model!r}: {why}; split it",
        cause="ItemTooLarge",
    )
