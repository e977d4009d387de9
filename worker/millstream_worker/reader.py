"""Wait for work in a lane that has run dry: the blocking read, on a connection of its own.

What it brings is held by the time it is here; what is delivered only, the lane's next commit
adopts. While no slot is free nothing is read, so that no delivery waits here that another worker
could begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from millstream.errors import StoreError
from millstream.store import arrivals
from millstream.store.arrivals import Arrival
from millstream.store.connection import Connection
from millstream.store.deliveries import Stray
from millstream.store.keys import Lane
from millstream_worker.gate import Gate
from millstream_worker.slots import Slots

#: How long one blocking read waits. Short enough to notice a dead connection soon.
BLOCK_S = 5.0


class Reader:
    """The blocking read of one lane. ``read_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        token: str,
        slots: Slots | Gate,
        dry: asyncio.Event,
        *,
        last: Mapping[str, str],
        found: Callable[[Arrival], None],
        failed: Callable[[StoreError], Awaitable[None]],
        look: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._token = token
        self._slots = slots
        #: Set while a commit would find nothing to take.
        self._dry = dry
        #: The entry of each level that was delivered last, see `arrivals`.
        self._last = last
        #: Whether what a read has brought may be begun as it is.
        self._sure = True
        #: Told what every read brought, also when that is nothing.
        self._found = found
        self._failed = failed
        #: Has the lane looked at by a commit again.
        self._look = look

    def doubt(self) -> None:
        """What is held is being compared; a read is under way that may bring what is known by then.

        It may have been taken anew meanwhile, and have recorded more than is said of it. So a
        commit adopts it again: only that one's account counts.
        """
        self._sure = False

    async def read_forever(self) -> None:
        """Wait for work whenever the lane is dry and there is room for it."""
        client = self._connection.new_reader(BLOCK_S)
        try:
            while True:
                await self._dry.wait()
                if self._slots.free < 1:
                    await self._until_free()
                    continue
                await self._read(client)
        finally:
            with anyio.move_on_after(1, shield=True):
                await client.aclose()

    async def _read(self, client: Any) -> None:
        self._sure = True
        try:
            found = await arrivals.wait(
                self._connection,
                client,
                self._lane,
                self._token,
                BLOCK_S,
                after=self._last,
                suspect=not self._slots.suspecting,
                canary=self._slots.canary,
            )
        except StoreError as error:
            await self._failed(error)
        else:
            if not self._sure:
                again = [Stray(x.level, x.entry) for x in found.taken]
                found = Arrival((), [*found.strays, *again])
            self._found(found)

    async def _until_free(self) -> None:
        """The lane is full: what a settling run frees is taken by its own commit."""
        self._look()
        while not self._slots.free:
            freed = asyncio.Event()
            self._slots.on_free.append(freed.set)
            try:
                await freed.wait()
            finally:
                self._slots.on_free.remove(freed.set)
