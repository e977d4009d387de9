"""What was handed to the next commit, and how its verdict reaches whoever waits for it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from millstream.store.commits import Verdict


class Sent:
    """Something on its way to the store, and who waits to hear what became of it."""

    __slots__ = ("_told", "_waiting", "verdict")

    def __init__(self, told: Callable[[Verdict], None] | None = None) -> None:
        self.verdict: Verdict | None = None
        self._told = told
        self._waiting: list[asyncio.Future[None]] = []

    def answered(self, verdict: Verdict) -> None:
        """The store has answered."""
        self.verdict = verdict
        if self._told is not None:
            self._told(verdict)
        for waiter in self._waiting:
            # One that was cancelled meanwhile no longer waits.
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> Verdict:
        """Return the verdict once it is known. Any number of branches may wait."""
        if self.verdict is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        assert self.verdict is not None
        return self.verdict


def awaited() -> tuple[asyncio.Future[Verdict], Callable[[Verdict], None]]:
    """Return a verdict that one caller alone waits for, and what tells it."""
    waiting: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    return waiting, functools.partial(_tell, waiting)


def _tell(waiting: asyncio.Future[Verdict], verdict: Verdict) -> None:
    # One that was cancelled meanwhile no longer waits.
    if not waiting.done():
        waiting.set_result(verdict)
