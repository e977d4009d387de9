"""What was handed to the next commit, and how its verdict reaches whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from millstream.store.commits import Item, Verdict
from millstream.store.keys import Lane


class Outbox(Protocol):
    """Where items go: the lane's next commit."""

    lane: Lane

    def submit(self, items: Sequence[Item], size: int, answered: Callable[[Verdict], None]) -> None:
        """Queue items of ``size`` bytes; ``answered`` is told the verdict on the last of them."""


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
