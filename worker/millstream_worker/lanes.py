"""Which lanes this process should serve: a queue may get another number of them at any time.

Costs nothing while nothing changes: each sweep of a lane brings its epoch along. Those that accept
nothing any more are served on as long as they hold runs, or records of runs; while there are such
lanes they are looked at again from time to time.
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
#: How often lanes that accept nothing any more are looked at: are they empty?
_FORMER_S = 30.0


class Lanes:
    """The lanes of some queues. ``make_duties`` is set by whoever puts the worker together."""

    make_duties: Callable[[Lane], LaneDuties]

    def __init__(self, connection: Connection, queues: Sequence[str], emit: Emit) -> None:
        #: Those that are served. Shared with the renewer, and changes while it runs.
        self.served: list[Lane] = []
        self._connection = connection
        self._emit = emit
        #: Up to which epoch the lanes of each queue are known.
        self._epochs = {ids.check_queue(queue): -1 for queue in queues}
        self._behind: set[str] = set()
        #: Queues with lanes that are served and accept nothing any more.
        self._former: set[str] = set()
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

    def end(self, lane: Lane) -> None:
        """Have the lease renewed in a lane no more."""
        self.served.remove(lane)

    def noticed(self, lane: Lane, epoch: int) -> None:
        """A lane was seen in an epoch."""
        if epoch > self._epochs[lane.queue]:
            self._behind.add(lane.queue)
            self._changed.set()

    async def awaited(self) -> list[Lane]:
        """Return the lanes of a queue that are to be served, once others are."""
        while True:
            with anyio.move_on_after(_FORMER_S if self._former else None):
                await self._changed.wait()
            for queue in sorted(self._behind | self._former):
                before = self._epochs[queue]
                try:
                    found = await self._look(queue)
                except StoreError as error:
                    self._emit(StoreFailed(during="survey", error=str(error)))
                    continue
                left = any(x.queue == queue and x not in found for x in self.served)
                if self._epochs[queue] > before or left:
                    return found
            await anyio.sleep(_PAUSE_S)

    async def _look(self, queue: str) -> list[Lane]:
        layout, lanes = await layouts.in_use(self._connection, queue)
        # A lane may be further than the first one for a moment: then it is noticed again.
        self._epochs[queue] = max(layout.epoch, self._epochs[queue])
        self._behind.discard(queue)
        self._former.discard(queue)
        if len(lanes) > layout.lanes:
            self._former.add(queue)
        if not self._behind:
            self._changed = anyio.Event()
        return lanes
