"""Times under a rate that all processes share, and the line of those here who wait for theirs.

All who ask while a call to Redis is under way are asked for together with the next one. Each then
waits for a time of its own, by its own timer. Promise: nobody goes before its time. Whoever is
cancelled while it waits has used its place.
"""

from __future__ import annotations

import asyncio
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
        self._line: list[asyncio.Future[None]] = []
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
            if not self._line:
                await self._wake.wait()
            # Who was cancelled before it was asked for takes nobody's place.
            turns = [turn for turn in self._line if not turn.done()][:_MOST_AT_ONCE]
            if not turns:
                self._line.clear()
                continue
            try:
                first_s, step_s = await self._reserve(len(turns))
            except StoreError:
                await anyio.sleep(0.2)
                continue
            asked = set(turns)
            self._line = [turn for turn in self._line if turn not in asked]
            loop = asyncio.get_running_loop()
            for number, turn in enumerate(turns):
                wait_s = first_s + number * step_s
                if wait_s > 0:
                    loop.call_later(wait_s, _go, turn)
                else:
                    _go(turn)


def _go(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
