"""Two gates in front of every call: one of the worker, one of the server.

Promise: callers pass in the order in which they came, and wait no longer than their deadline.
The server's gate comes first: whoever waits for a slow server holds no place of the worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from millstream_worker.tools.faults import Unsent


class Gates:
    """The way to one server."""

    def __init__(self, *, server: int, worker: anyio.CapacityLimiter) -> None:
        self._server = anyio.CapacityLimiter(server)
        self._worker = worker

    @asynccontextmanager
    async def passed(self, deadline: float) -> AsyncIterator[None]:
        """Hold a place in both gates, or raise `Unsent` when there is none in time."""
        # Not the task: one task may have several calls under way.
        holder = object()
        if not self._pass_at_once(holder):
            await self._wait(holder, deadline)
        try:
            yield
        finally:
            self._worker.release_on_behalf_of(holder)
            self._server.release_on_behalf_of(holder)

    def _pass_at_once(self, holder: object) -> bool:
        """Take both places if nobody waits for them: the usual case, and three times cheaper."""
        try:
            self._server.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            return False
        try:
            self._worker.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            self._server.release_on_behalf_of(holder)
            return False
        return True

    async def _wait(self, holder: object, deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline) as waiting:
            await self._server.acquire_on_behalf_of(holder)
            try:
                await self._worker.acquire_on_behalf_of(holder)
            except BaseException:
                self._server.release_on_behalf_of(holder)
                raise

        if waiting.cancelled_caught:
            raise Unsent("too many calls are under way; none ended in time")
