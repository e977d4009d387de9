"""Times under a rate that all processes share, and the line of those here who wait for theirs.

All who ask while a call to Redis is under way are asked for together with the next one. Each then
waits for a time of its own, by its own timer. Promise: nobody goes before its time, and the time of
whoever is cancelled while it waits is that of the next one here: else callers that give up before
their turn would reserve all there is, and nobody would go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from millstream.errors import StoreError

#: How many times are reserved in one call.
_MOST_AT_ONCE = 1_000

#: Reserves so many times; returns how long until the first, and from each to the next.
Reserves = Callable[[int], Awaitable[tuple[float, float]]]


class Pace:
    """One rate. It lives as long as `serve` runs."""

    def __init__(self, reserve: Reserves) -> None:
        self._reserve = reserve
        self._line: deque[asyncio.Future[None]] = deque()
        #: Times that were reserved and have not come.
        self._reserved = 0
        self._wake = anyio.Event()

    async def enter(self) -> None:
        """Return when the time has come."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self._wake.set()
        await turn

    async def serve(self) -> None:
        """Reserve times for whoever asks."""
        while True:
            self._wake = anyio.Event()
            self._line = deque(turn for turn in self._line if not turn.done())
            count = min(_MOST_AT_ONCE, len(self._line) - self._reserved)
            if count <= 0:
                await self._wake.wait()
                continue
            try:
                first_s, step_s = await self._reserve(count)
            except StoreError:
                await anyio.sleep(0.2)
                continue
            self._reserved += count
            loop = asyncio.get_running_loop()
            for number in range(count):
                wait_s = first_s + number * step_s
                if wait_s > 0:
                    loop.call_later(wait_s, self._go)
                else:
                    self._go()

    def _go(self) -> None:
        """A time has come: it is that of the first one here."""
        self._reserved -= 1
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
