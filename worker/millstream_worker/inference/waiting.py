"""A call that waits for its inputs to be answered, and which runs wait at all.

One future a call, however many inputs it has: it ends with the last answer or the first failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millstream.model.trace import Place

if TYPE_CHECKING:
    from millstream_worker.inference.items import Item


class Attendance:
    """The runs that wait here. A device that is free asks whether another one could still join."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def came(self, run: str) -> None:
        """A call of a run begins to wait."""
        self._calls[run] = self._calls.get(run, 0) + 1

    def left(self, run: str) -> None:
        """A call of a run waits no longer."""
        left = self._calls[run] - 1
        if left:
            self._calls[run] = left
        else:
            del self._calls[run]


class Waiter:
    """One call, counted as waiting from here on until `rest`."""

    __slots__ = ("_attendance", "_done", "_left", "_resting", "items", "on_text", "place", "run")

    def __init__(self, run: str, attendance: Attendance, place: Place | None = None) -> None:
        self.run = run
        #: Where the call stands in a trace.
        self.place = place
        #: Who listens to what is written of its inputs, if anybody.
        self.on_text: Callable[[int, str], None] | None = None
        self.items: Sequence[Item] = ()
        self._attendance = attendance
        self._left = 0
        self._resting = False
        self._done: asyncio.Future[None] | None = None
        attendance.came(run)

    def expect(self, items: Sequence[Item]) -> asyncio.Future[None]:
        """Return what ends with the last of these items, or as the first of them that fails.

        They know that they are waited for.
        """
        self.items = items
        self._left = len(items)
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    @property
    def values(self) -> list[Any]:
        """The answers, in the order of the inputs."""
        return [item.value for item in self.items]

    def ended(self, error: BaseException | None) -> None:
        """One of the items has ended."""
        self._left -= 1
        if error is None and self._left > 0:
            return
        # Before the call itself hears of it: a device that is free asks at once who could join,
        # and whom it has just answered is the likeliest.
        self.rest()
        assert self._done is not None
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
            # A call that is given up in this very moment does not look: that is no mistake.
            self._done.exception()

    def say(self, item: Item, text: str) -> None:
        """Let who listens have what was written of an input, however often it was asked."""
        if self.on_text is not None:
            for index, each in enumerate(self.items):
                if each is item:
                    self.on_text(index, text)

    def rest(self) -> None:
        """Wait no longer."""
        if not self._resting:
            self._resting = True
            self._attendance.left(self.run)

    def leave(self) -> None:
        """Take no more interest in what has not ended."""
        for item in self.items:
            if not item.done:
                item.waiters.remove(self)

    @property
    def waited_s(self) -> float:
        """How long the item that waited longest stood in a queue."""
        longest = 0.0
        for item in self.items:
            longest = max(longest, item.launched - item.queued)
        return longest
