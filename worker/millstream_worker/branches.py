"""Run several lines of calls of one workflow at the same time, each a branch of its own.

All branches run to their end, also when one of them fails; then the first failure, by position, is
raised. So a replay visits what the run visited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from millstream.errors import Continued, Suspended, UsageError
from millstream_worker import tasks
from millstream_worker.held import Held
from millstream_worker.parking import Parking
from millstream_worker.replayer import Branch, Replay


class Split:
    """The branches of one call of ``gather``. Their keys are taken when this is made."""

    def __init__(self, held: Held, replay: Replay, parking: Parking, count: int) -> None:
        self._held = held
        self._replay = replay
        self._parking = parking
        self._branches: list[Branch] = replay.branch.children(count)
        # The path of a branch is the key of its gather, and where in it the branch stands.
        self.key = self._branches[0].path.rpartition(".")[0] if count else ""
        self._failures: dict[int, BaseException] = {}
        self._values: list[Any] = [None] * count

    async def gather(self, awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
        """Await each in its branch; return their values in order."""
        if not awaitables:
            return []

        async def follow(index: int, ended: Callable[[], None]) -> None:
            await self._follow(index, awaitables[index])
            ended()

        with self._parking.split(len(awaitables)) as ended:
            async with anyio.create_task_group() as group:
                for index in range(len(awaitables)):
                    group.start_soon(follow, index, ended)

        return self._ended()

    async def _follow(self, index: int, awaitable: Awaitable[Any]) -> None:
        with self._replay.inside(self._branches[index]):
            try:
                self._values[index] = await awaitable
            except Suspended:
                pass  # said once for all branches, at the end
            except (*tasks.ERRORS, Continued) as error:
                # Raised when all have ended. Two of them would end the worker if they left this
                # task, and a cancellation of its own making would go unheard.
                self._failures[index] = tasks.own(error)

    def _ended(self) -> list[Any]:
        if self._held.stopped is not None:
            raise Suspended
        if self._failures:
            raise self._failures[min(self._failures)]
        return self._values


class Mapping:
    """The branches of one call of ``map``: one an item, a bounded number at a time.

    The branch of an item is named after its place: it does not matter which of them run together.
    """

    def __init__(
        self, held: Held, replay: Replay, parking: Parking, items: Sequence[Any], limit: int
    ) -> None:
        if limit < 1:
            raise UsageError(f"ctx.map runs at least one item at a time, not {limit}")
        self.items = items
        self.key = replay.branch.key("map", None) if items else ""
        self._held = held
        self._replay = replay
        self._parking = parking
        self._limit = min(limit, len(items))
        self._failures: dict[int, BaseException] = {}
        self._values: list[Any] = [None] * len(items)

    async def map(self, fn: Callable[[Any], Awaitable[Any]]) -> list[Any]:
        """Call the function for each item in a branch of its own; return the values in order."""
        if not self.items:
            return []
        places = iter(range(len(self.items)))

        async def work(ended: Callable[[], None]) -> None:
            for place in places:
                await self._follow(place, fn)
                if self._held.stopped is not None:
                    break
            ended()

        with self._parking.split(self._limit) as ended:
            async with anyio.create_task_group() as group:
                for _ in range(self._limit):
                    group.start_soon(work, ended)

        if self._held.stopped is not None:
            raise Suspended
        if self._failures:
            raise self._failures[min(self._failures)]
        return self._values

    async def _follow(self, place: int, fn: Callable[[Any], Awaitable[Any]]) -> None:
        with self._replay.inside(Branch(f"{self.key}.{place}/")):
            try:
                self._values[place] = await fn(self.items[place])
            except Suspended:
                pass  # said once for all branches, at the end
            except (*tasks.ERRORS, Continued) as error:
                self._failures[place] = tasks.own(error)
