"""A lane's contact with the store: whether it answers, what its clock says, how it is found again.

What the loops tell of their calls goes to the events and to the health of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed, StoreRecovered
from millstream.store import deliveries
from millstream.store.connection import Connection
from millstream.store.keys import Lane


class Contact:
    """A lane's contact with the store."""

    def __init__(
        self,
        connection: Connection,
        lane: Lane,
        *,
        emit: Emit,
        alive: Callable[[], None],
        answered: Callable[[str | None], None],
    ) -> None:
        self._connection = connection
        self._lane = lane
        self._emit = emit
        #: Told of every turn of a loop.
        self.alive = alive
        #: Told what came of a call: None when it was served, else why not.
        self._answered = answered
        #: The clock of Redis, as an offset to the loop's own.
        self._offset_s = 0.0
        #: Since when which calls fail, by the loop's own clock.
        self._since: dict[str, float] = {}

    def wall(self) -> float:
        """Return the time in epoch seconds, by the clock of Redis."""
        return asyncio.get_running_loop().time() + self._offset_s

    def refused(self, during: str, error: StoreError) -> None:
        """A call has failed, for the first time or again."""
        self._still_refused(error)
        self._since.setdefault(during, asyncio.get_running_loop().time())
        self._emit(StoreFailed(during=f"{during} {self._lane}", error=str(error)))

    def _still_refused(self, error: StoreError) -> None:
        # Refused is a turn too: Redis being away must not look like a loop that hangs.
        self.alive()
        self._answered(str(error))

    async def recover(self, error: StoreError) -> None:
        """Have the next call find its server anew, and make what that one lacks."""
        await self._connection.reset()
        if "NOGROUP" in str(error):
            # Redis was flushed, or came back without what it had: make the groups again.
            try:
                await deliveries.ensure_groups(self._connection, self._lane)
            except StoreError as again:
                self._still_refused(again)

    def met(self, now: float | None = None) -> None:
        """A call was served; ``now``: it says what time it is."""
        self.alive()
        self._answered(None)
        if now is not None:
            self._offset_s = now - asyncio.get_running_loop().time()

    def served(self, during: str, now: float) -> None:
        """A call was served."""
        self.met(now)
        if self._since:
            self.recovered(during)

    def recovered(self, during: str) -> None:
        """If a call had failed before, that is over."""
        failed_at = self._since.pop(during, None)
        if failed_at is not None:
            away_s = asyncio.get_running_loop().time() - failed_at
            self._emit(StoreRecovered(during=f"{during} {self._lane}", away_s=away_s))
