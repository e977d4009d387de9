"""Know which lanes there are: a queue may get more of them, or fewer, at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from millstream.errors import StoreError
from millstream.events import Emit
from millstream.store import layouts
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_scheduler.outage import Outage

#: How soon another number of lanes is noticed.
_LOOK_S = 1.0

#: The lanes of each queue.
Map = dict[str, tuple[Lane, ...]]


class Surveyor:
    """Reads the layout of the queues, at the cost of one look-up a queue.

    Of the lanes that accept nothing any more, those that still hold runs count.
    """

    def __init__(
        self,
        connection: Connection,
        queues: Sequence[str],
        *,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._queues = tuple(dict.fromkeys(queues))
        self._outage = Outage("survey", emit, mono)

    async def lanes(self) -> Map:
        """Return the lanes as they are, however long Redis is away."""
        while True:
            try:
                found = {queue: await self._lanes_of(queue) for queue in self._queues}
            except StoreError as error:
                self._outage.failed(error)
                await anyio.sleep(_LOOK_S)
            else:
                self._outage.answered()
                return found

    async def until_changed(self, known: Map) -> None:
        """Return once there are other lanes than these."""
        while await self.lanes() == known:
            await anyio.sleep(_LOOK_S)

    async def _lanes_of(self, queue: str) -> tuple[Lane, ...]:
        _, lanes = await layouts.in_use(self._connection, queue)
        return tuple(lanes)
