"""Sample the gauges of a queue: one reading for everybody who wants to know its depth.

A reading costs the same however long the queue is, and however many scrapes and autoscalers ask:
they see the last one. When Redis is away there is none, and whoever shows it lets it grow stale; a
zero would scale the fleet away. It does not know who looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, QueueSampled
from millstream.store import runs
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import LaneDepth
from millstream_scheduler.outage import Outage
from millstream_scheduler.term import Term


class Gauge:
    """The duty of measuring one queue during one term. ``sample_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        queue: str,
        lanes: Sequence[Lane],
        term: Term,
        *,
        interval_s: float,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._lanes = lanes
        self._term = term
        self._interval_s = interval_s
        self._emit = emit
        self._outage = Outage("sample", emit, mono)

    async def sample_forever(self) -> None:
        """Take a reading at every interval."""
        while True:
            if self._term.trusted:
                await self._sample()
            await anyio.sleep(self._interval_s)

    async def _sample(self) -> None:
        try:
            depths = [await runs.depth(self._connection, lane) for lane in self._lanes]
        except StoreError as error:
            self._outage.failed(error)
            return

        self._outage.answered()
        self._emit(_reading(self._queue, depths))


def _reading(queue: str, depths: Sequence[LaneDepth]) -> QueueSampled:
    return QueueSampled(
        queue=queue,
        waiting=sum(depth.waiting for depth in depths),
        running=sum(depth.running for depth in depths),
        scheduled=sum(depth.scheduled for depth in depths),
        parked=sum(depth.parked for depth in depths),
        dead=sum(depth.dead for depth in depths),
        oldest_s=max(depth.oldest_s for depth in depths),
        # A worker serves every lane of its queue.
        workers=max(depth.workers for depth in depths),
        paused=int(any(depth.paused for depth in depths)),
    )
