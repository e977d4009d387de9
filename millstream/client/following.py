"""Notice that runs of a lane have said something, over one connection however many are followed.

A follower reads the events itself, from where it stands; here it only learns that there is more to
read. So nothing is handed on that could be lost, and a follower that is slow costs nobody else.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from millstream.client.coalescing import give_up
from millstream.errors import StoreError
from millstream.store import sayings
from millstream.store.connection import Connection
from millstream.store.keys import Lane

#: Whoever begins to wait is listened for after so many seconds at the latest.
_TURN_S = 0.25
#: A store that does not block must not make a hot loop of this.
_PAUSE_S = 0.02


class Following:
    """The runs of one lane that somebody waits to hear from. ``serve_forever`` must run."""

    def __init__(self, connection: Connection, lane: Lane) -> None:
        self._connection = connection
        self._lane = lane
        #: By run: from where on each waits, and what wakes it.
        self._waiting: dict[str, list[tuple[str, asyncio.Future[None]]]] = {}
        self._wanted = asyncio.Event()

    async def until_more(self, run_id: str, after: str) -> None:
        """Return when the run may have said something after an event id; look, then ask again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (after or "0-0", future)
        self._waiting.setdefault(run_id, []).append(entry)
        self._wanted.set()
        try:
            await future
        finally:
            self._forget(run_id, entry)

    async def serve_forever(self) -> None:
        """Listen for as long as somebody waits."""
        try:
            while True:
                await self._wanted.wait()
                try:
                    await self._listen()
                except StoreError:
                    # They look themselves, and learn from that what is wrong.
                    self._wake(list(self._waiting))
                    await anyio.sleep(0.2)
        finally:
            for entries in self._waiting.values():
                for _, future in entries:
                    give_up(future)

    async def _listen(self) -> None:
        client = self._connection.new_client(read_timeout_s=_TURN_S)
        try:
            while self._waiting:
                began = anyio.current_time()
                heard = await self._hear(client)
                self._wake(heard)
                if not heard and anyio.current_time() - began < _PAUSE_S:
                    await anyio.sleep(_PAUSE_S)
            self._wanted.clear()
        finally:
            with anyio.move_on_after(1, shield=True):
                await self._connection.close_client(client)

    async def _hear(self, client: Any) -> list[str]:
        places = {
            run_id: min((after for after, _ in entries), key=sayings.place)
            for run_id, entries in self._waiting.items()
        }
        return await sayings.with_news(self._connection, client, self._lane, places, _TURN_S)

    def _wake(self, runs: list[str]) -> None:
        for run_id in runs:
            for _, future in self._waiting.pop(run_id, ()):
                if not future.done():
                    future.set_result(None)

    def _forget(self, run_id: str, entry: tuple[str, asyncio.Future[None]]) -> None:
        entries = self._waiting.get(run_id)
        if entries and entry in entries:
            entries.remove(entry)
            if not entries:
                del self._waiting[run_id]
