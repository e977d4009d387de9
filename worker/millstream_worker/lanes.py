"""Which lanes this process should serve: a queue may get another number of them at any time.

Costs nothing while nothing changes: each sweep of a lane brings its epoch along. Lanes are only
ever added while the process lives. Those that accept nothing any more are served on, since they
may hold runs; a process that starts later serves them only while they do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from millstream.errors import StoreError, StoreUnavailable
from millstream.events import Emit, StoreFailed
from millstream.model import ids
from millstream.store import layouts
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_worker.serve import LaneDuties

#: How soon a look-up that failed, or that came before the resize was through, is repeated.
_PAUSE_S = 0.5


class Lanes:
    """The lanes of some queues. ``make_duties`` is set by whoever puts the worker together."""

    make_duties: Callable[[Lane], LaneDuties]

    def __init__(self, connection: Connection, queues: Sequence[str], emit: Emit) -> None:
        #: Those that are served. Shared with the renewer, and grows.
        self.served: list[Lane] = []
        self._connection = connection
        self._emit = emit
        #: Up to which epoch the lanes of each queue are known.
        self._epochs = {ids.check_queue(queue): -1 for queue in queues}
        self._behind: set[str] = set()
        self._changed = anyio.Event()

    async def look_up(self) -> None:
        """Find the lanes to begin with. Insists: Redis may be away for a moment just now."""
        for queue in self._epochs:
            while True:
                try:
                    self.served += await self._look(queue)
                    break
                except StoreUnavailable:
                    await self._connection.reset()
                    await anyio.sleep(_PAUSE_S)

    def begin(self, lane: Lane) -> LaneDuties:
        """Have the lease renewed in a lane from now on, and return what serves it."""
        self.served.append(lane)
        return self.make_duties(lane)

    def noticed(self, lane: Lane, epoch: int) -> None:
        """A lane was seen in an epoch."""
        if epoch > self._epochs[lane.queue]:
            self._behind.add(lane.queue)
            self._changed.set()

    async def awaited(self) -> list[Lane]:
        """Return the lanes of a queue, once it has another number of them."""
        while True:
            await self._changed.wait()
            for queue in sorted(self._behind):
                before = self._epochs[queue]
                try:
                    found = await self._look(queue)
                except StoreError as error:
                    self._emit(StoreFailed(during="survey", error=str(error)))
                    continue
                if self._epochs[queue] > before:
                    return found
            await anyio.sleep(_PAUSE_S)

    async def _look(self, queue: str) -> list[Lane]:
        layout, lanes = await layouts.in_use(self._connection, queue)
        # A lane may be further than the first one for a moment: then it is noticed again.
        self._epochs[queue] = max(layout.epoch, self._epochs[queue])
        self._behind.discard(queue)
        if not self._behind:
            self._changed = anyio.Event()
        return lanes
