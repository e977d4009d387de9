"""Deliver what a lane has to say in others: as soon as it is written, and again if that failed.

Nothing is promised here: what is not delivered stands in the outbox, and the next sweep of any
worker finds it there.
"""

from __future__ import annotations

import asyncio

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed
from millstream.store import outbox
from millstream.store.connection import Connection
from millstream.store.keys import Lane

_PAUSE_S = 0.2


class Dispatcher:
    """The outbox of one lane. ``dispatch_forever`` must run."""

    def __init__(
        self, connection: Connection, lane: Lane, *, emit: Emit, retention_s: float
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._emit = emit
        self._retention_s = retention_s
        self._posted = asyncio.Event()

    def posted(self) -> None:
        """Something stands in the outbox."""
        self._posted.set()

    async def dispatch_forever(self) -> None:
        """Deliver whatever is posted."""
        while True:
            await self._posted.wait()
            self._posted.clear()
            try:
                await outbox.dispatch(self._connection, self._lane, self._retention_s)
            except StoreError as error:
                self._emit(StoreFailed(during=f"dispatch {self._lane}", error=str(error)))
                await anyio.sleep(_PAUSE_S)
