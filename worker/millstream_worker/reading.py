"""Read what stands for one run. It insists: without that the run must not go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed
from millstream.model.journal import Record
from millstream.store import journals, messages
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.messages import Standing

T = TypeVar("T")

_PAUSE_S = 0.5


class RunReader:
    """The reads of one run."""

    def __init__(self, connection: Connection, lane: Lane, run_id: str, emit: Emit) -> None:
        self._connection = connection
        self._lane = lane
        self._run_id = run_id
        self._emit = emit

    async def journal(self) -> dict[str, Record]:
        """Return all records by step key."""
        return await self._insist(
            "load", lambda: journals.load(self._connection, self._lane, self._run_id)
        )

    async def standing(self) -> Standing:
        """Return which messages wait."""
        return await self._insist(
            "look for messages",
            lambda: messages.standing(self._connection, self._lane, self._run_id),
        )

    async def taken(self, key: str) -> Record:
        """Return the record under which a message was taken."""
        return await self._insist(
            "take a message",
            lambda: messages.taken(self._connection, self._lane, self._run_id, key),
        )

    async def _insist(self, during: str, ask: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await ask()
            except StoreError as error:
                self._emit(StoreFailed(during=during, error=str(error)))
                await self._connection.reset()
                await anyio.sleep(_PAUSE_S)
