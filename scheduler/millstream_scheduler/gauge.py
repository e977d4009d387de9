"""Sample the gauges of a queue: one reading for everybody who wants to know its depth.

A reading costs a call for each lane and three for the workers, however long the queue is, and
however many scrapes and autoscalers ask: they see the last one. When Redis is away there is none,
and whoever shows it lets it grow stale; a zero would scale the fleet away. It does not know who
looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, QueueSampled
from millstream.store import agents, runs
from millstream.store.agents import Agent
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import LaneDepth
from millstream_scheduler.outage import Outage
from millstream_scheduler.rates import Rates
from millstream_scheduler.readings import Readings
from millstream_scheduler.term import Term


class Gauge:
    """The duty of measuring one queue during one term. ``sample_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        queue: str,
        lanes: Sequence[Lane],
        term: Term,
        readings: Readings,
        *,
        interval_s: float,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._lanes = lanes
        self._term = term
        self._readings = readings
        self._interval_s = interval_s
        self._emit = emit
        self._mono = mono
        self._outage = Outage("sample", emit, mono)
        # A new leader, or one whose queue got more lanes, goes on from what was known.
        before = readings.last(queue)
        self._rates = Rates(
            arrival_rate=before.arrival_rate if before else None,
            service_s=before.service_s if before else None,
        )

    async def sample_forever(self) -> None:
        """Take a reading at every interval."""
        while True:
            if self._term.trusted:
                await self._sample()
            await anyio.sleep(self._interval_s)

    async def _sample(self) -> None:
        asked = self._mono()
        try:
            depths = [await runs.depth(self._connection, lane) for lane in self._lanes]
            # A worker serves every lane of its queue, and says so in each.
            workers = await agents.living(self._connection, self._lanes[0])
        except StoreError as error:
            self._outage.failed(error)
            return

        self._outage.answered()
        if not self._term.trusted:
            return  # another one samples by now

        self._rates.look(
            self._mono(),
            added=sum(depth.added for depth in depths),
            gone=sum(depth.gone for depth in depths),
            running=sum(depth.running for depth in depths),
        )
        took_s = self._mono() - asked
        reading = _reading(self._queue, depths, workers, self._rates, took_s)
        self._readings.keep(reading, took_s)
        self._emit(reading)


def _reading(
    queue: str,
    depths: Sequence[LaneDepth],
    workers: Sequence[Agent],
    rates: Rates,
    took_s: float,
) -> QueueSampled:
    return QueueSampled(
        queue=queue,
        waiting=sum(depth.waiting for depth in depths),
        running=sum(depth.running for depth in depths),
        scheduled=sum(depth.scheduled for depth in depths),
        due=sum(depth.due for depth in depths),
        parked=sum(depth.parked for depth in depths),
        limited=sum(depth.limited for depth in depths),
        dead=sum(depth.dead for depth in depths),
        oldest_s=max(depth.oldest_s for depth in depths),
        # A worker serves every lane of its queue.
        workers=max(depth.workers for depth in depths),
        paused=int(any(depth.paused for depth in depths)),
        slots=sum(worker.concurrency for worker in workers),
        arrival_rate=rates.arrival_rate,
        service_s=rates.service_s,
        took_s=took_s,
    )
