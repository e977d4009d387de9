"""Hear of messages to runs that this worker holds, in the moment in which they come.

A run that is parked is queued by the message itself; this is for those whose other branches are
busy. Nothing is listened to before the first run waits. A hint that is lost is made up for by the
next sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.messages import Hints
from millstream_worker.held import Held

_PAUSE_S = 0.2
#: How long one read of the channel waits.
_TURN_S = 5.0


class Listener:
    """The ear of one lane. ``listen_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        token: str,
        held: Mapping[str, Held],
        *,
        emit: Emit,
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._token = token
        self._held = held
        self._emit = emit
        self._wanted = asyncio.Event()

    def begin(self) -> None:
        """Somebody waits."""
        self._wanted.set()

    def hear(self, run_id: str, name: str | None = None) -> None:
        """A message has come for a run; None: it may have, and its name is not known."""
        held = self._held.get(run_id)
        if held is not None:
            held.hear(name)

    async def listen_forever(self) -> None:
        """Listen, as soon as somebody waits."""
        await self._wanted.wait()
        while True:
            try:
                await self._listen()
            except StoreError as error:
                self._emit(StoreFailed(during=f"listen {self._lane}", error=str(error)))
            await anyio.sleep(_PAUSE_S)

    async def _listen(self) -> None:
        hints = Hints(self._connection, self._lane, self._token)
        try:
            await hints.open()
            # What came before the subscription stood was told to nobody.
            for run_id in tuple(self._held):
                self.hear(run_id)
            async for hint in hints.heard(_TURN_S):
                if hint is not None:
                    self.hear(hint.run_id, hint.name)
        finally:
            with anyio.move_on_after(1, shield=True):
                await hints.aclose()
