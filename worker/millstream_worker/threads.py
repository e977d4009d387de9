"""Run plain functions beside the event loop, in a bounded number of threads.

A thread cannot be stopped. When its caller has given up on it, it runs on, unheard, and keeps its
place until it ends: so the bound holds, whatever hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread


class Threads:
    """Places for plain functions. Call it with a function to have it run in one."""

    def __init__(self, places: int) -> None:
        self._places = anyio.Semaphore(places)
        # The bound is ours: anyio's limiter takes a thread that was given up for one that ended.
        self._unlimited = anyio.CapacityLimiter(math.inf)

    async def __call__(self, function: Callable[[], Any]) -> Any:
        """Return what the function returns."""
        await self._places.acquire()
        work = _Work(function, asyncio.get_running_loop(), self._places.release)
        try:
            return await anyio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._unlimited
            )
        except BaseException:
            work.drop()
            raise


class _Work:
    """One function on its way into a thread."""

    def __init__(
        self,
        function: Callable[[], Any],
        loop: asyncio.AbstractEventLoop,
        release: Callable[[], None],
    ) -> None:
        self._function = function
        self._loop = loop
        self._release = release
        self._lock = threading.Lock()
        self._decided = False

    def __call__(self) -> Any:
        """Run, unless it was dropped before it began; called in the thread."""
        if not self._decide():
            return None
        try:
            return self._function()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has gone, and the process with it
                self._loop.call_soon_threadsafe(self._release)

    def drop(self) -> None:
        """Have it not begin, if it has not; then its place is free."""
        if self._decide():
            self._release()

    def _decide(self) -> bool:
        with self._lock:
            first, self._decided = not self._decided, True
            return first
