"""Two gates in front of every call: one of the worker, one of the server.

Promise: callers pass in the order in which they came, and wait no longer than their deadline.
The server's gate comes first: whoever waits for a slow server holds no place of the worker.

A gate is a count and a line of futures. anyio's limiter knows who holds what, and takes a scope
for a wait with a deadline: with more callers than places, a quarter of what a call costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType

from millstream_worker.tools.faults import Unsent


class Gate:
    """So many places, and the line of those who wait for one."""

    __slots__ = ("_free", "_line")

    def __init__(self, places: int) -> None:
        self._free = places
        self._line: deque[asyncio.Future[bool]] = deque()

    def enter_at_once(self) -> bool:
        """Take a place unless there is none. While somebody waits there is none."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def enter(self, deadline: float) -> None:
        """Take a place, or raise `Unsent` when there is none in time."""
        if self.enter_at_once():
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._line.append(turn)
        timer = loop.call_at(deadline, _decide, turn, False)
        try:
            passed = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                # The place came in the very moment in which its caller was cancelled.
                self.leave()
            else:
                self._forget(turn)
            raise
        finally:
            timer.cancel()
        if not passed:
            self._forget(turn)
            raise Unsent("too many calls are under way; none ended in time")

    def leave(self) -> None:
        """Give a place back, to whoever has waited longest."""
        while self._line:
            if _decide(self._line.popleft(), True):
                return
        self._free += 1

    def _forget(self, turn: asyncio.Future[bool]) -> None:
        with suppress(ValueError):  # whoever left meanwhile has passed it over
            self._line.remove(turn)


class Gates:
    """The way to one server."""

    def __init__(self, *, server: int, worker: Gate) -> None:
        self._server = Gate(server)
        self._worker = worker

    def passed(self, deadline: float) -> _Place:
        """Hold a place in both gates for a block; `Unsent` is raised when there is none in time."""
        return _Place(self._server, self._worker, deadline)


class _Place:
    """A block that holds a place in both gates."""

    __slots__ = ("_deadline", "_server", "_worker")

    def __init__(self, server: Gate, worker: Gate, deadline: float) -> None:
        self._server = server
        self._worker = worker
        self._deadline = deadline

    async def __aenter__(self) -> None:
        if not self._server.enter_at_once():
            await self._server.enter(self._deadline)
        if not self._worker.enter_at_once():
            try:
                await self._worker.enter(self._deadline)
            except BaseException:
                self._server.leave()
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.leave()
        self._server.leave()


def _decide(turn: asyncio.Future[bool], passed: bool) -> bool:
    """Tell whoever waits how it ends; False when that was decided before."""
    if turn.done():
        return False
    turn.set_result(passed)
    return True
