"""Room at what all workers of a queue share: so many at once, so many in a period.

One room is shared by whoever names the same queue and the same thing. Promise: a block that was
entered counts, on all workers together, and whoever waits for one room holds up no other. How many
wait is told when that changes; who finds room at once costs no event. It does not know what is done
in a room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from millstream.errors import StoreError
from millstream.events import Emit, RoomAwaited
from millstream.model.limit import Quota
from millstream.store import pools
from millstream.store.connection import Connection
from millstream_worker import groups
from millstream_worker.pacing import Pace
from millstream_worker.permits import Permits

#: How long giving back may take when the process ends: what is not given back lapses.
_CLOSE_S = 1.0


class Rooms:
    """The rooms of one process. Enter and leave it in the same task."""

    def __init__(
        self,
        connection: Connection,
        token: str,
        lease_s: float,
        *,
        emit: Emit = lambda _: None,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._token = token
        self._lease_s = lease_s
        self._emit = emit
        self._mono = mono
        self._rooms: dict[tuple[str, str], _Room] = {}
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._group is not None
        await groups.end(self._group)
        with anyio.move_on_after(_CLOSE_S, shield=True):
            for room in self._rooms.values():
                with suppress(StoreError):
                    await room.resign()

    def room(self, queue: str, name: str, quota: Quota) -> AbstractAsyncContextManager[None]:
        """Return a block that holds a place under a quota."""
        room = self._rooms.get((queue, name))
        if room is None:
            room = self._opened(queue, name, quota)
            self._rooms[queue, name] = room
        return _Place(room)

    def _opened(self, queue: str, name: str, quota: Quota) -> _Room:
        assert self._group is not None, "enter the Rooms first"

        def told(waiting: int) -> None:
            self._emit(RoomAwaited(queue=queue, room=name, waiting=waiting))

        pool = f"{queue}/{name}"
        room = _Room(self._pace(pool, quota), self._permits(pool, quota), told)
        for part in (room.pace, room.permits):
            if part is not None:
                self._group.start_soon(part.serve)
        return room

    def _pace(self, name: str, quota: Quota) -> Pace | None:
        if quota.rate is None:
            return None
        rate = pools.Rate(name)
        return Pace(
            lambda count: pools.pace(self._connection, rate, count, quota.rate or 1, quota.per)
        )

    def _permits(self, name: str, quota: Quota) -> Permits | None:
        if quota.concurrency is None:
            return None
        pool, most = pools.Pool(name), quota.concurrency

        async def speak(sequence: int, keep: int, want: int) -> pools.Share | None:
            return await pools.speak(
                self._connection, pool, self._token, sequence, keep, want, most, self._lease_s
            )

        return Permits(
            speak,
            partial(pools.listen, self._connection, pool),
            token=self._token,
            most=most,
            lease_s=self._lease_s,
            mono=self._mono,
        )


class _Room:
    """One room: its rate, its permits, and how many wait for it here."""

    __slots__ = ("_told", "_waiting", "pace", "permits")

    def __init__(
        self, pace: Pace | None, permits: Permits | None, told: Callable[[int], None]
    ) -> None:
        self.pace = pace
        self.permits = permits
        self._told = told
        self._waiting = 0

    def at_once(self) -> bool:
        """Enter, if nobody has to be waited for."""
        return self.pace is None and (self.permits is None or self.permits.take())

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Be counted among those who wait."""
        self._waiting += 1
        self._told(self._waiting)
        try:
            yield
        finally:
            self._waiting -= 1
            self._told(self._waiting)

    async def resign(self) -> None:
        if self.permits is not None:
            await self.permits.resign()


class _Place:
    """A block in a room."""

    __slots__ = ("_room",)

    def __init__(self, room: _Room) -> None:
        self._room = room

    async def __aenter__(self) -> None:
        room = self._room
        if room.at_once():
            return
        with room.awaited():
            # Nobody holds a permit while it waits for its time.
            if room.pace is not None:
                await room.pace.enter()
            if room.permits is not None:
                await room.permits.enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._room.permits is not None:
            self._room.permits.leave()
