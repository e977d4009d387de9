"""Look after a lane: promote what is due, requeue what dead workers held, pass on cancellations.

Every worker does this for the lanes it serves, one at a time, so recovery needs no scheduler. A
sweep is also the pulse of this process: it tells the loop's health, and has the consumer compare
its holdings once a lease.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from millstream.errors import StoreError
from millstream.events import Emit, LaneSwept, StoreFailed
from millstream.store import agents, leases, trials
from millstream.store.agents import Agent
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.trials import Knows
from millstream_worker.consumer import Consumer
from millstream_worker.gate import Gate
from millstream_worker.lease import Lease


class Sweeper:
    """The duty of looking after one lane. ``sweep_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        consumer: Consumer,
        agent: Agent,
        lease: Lease,
        *,
        emit: Emit,
        retention_s: float,
        poison: int,
        turned: Callable[[], None] = lambda: None,
        posted: Callable[[], None] = lambda: None,
        noticed: Callable[[Lane, int], None] = lambda _lane, _epoch: None,
        gate: Gate | None = None,
        knows: Knows = lambda _workflow, _version: True,
    ) -> None:
        self._connection = connection
        self._consumer = consumer
        self._agent = agent
        self._lease = lease
        self._emit = emit
        self._retention_s = retention_s
        self._poison = poison
        self._turned = turned
        #: Told when something stands in the lane's outbox.
        self._posted = posted
        #: Told the epoch of the lane: it grows when the queue gets another number of lanes.
        self._noticed = noticed
        #: Told whether the queue is paused.
        self._gate = gate
        #: Whether a version of a workflow can be run here.
        self._knows = knows
        self._interval_s = min(1.0, lease.length_s / 10)
        self._lapses = lease.lapses

    async def sweep_forever(self) -> None:
        """Sweep a tenth of a lease apart, at most every second, sooner when something is due."""
        compared = anyio.current_time()
        while True:
            self._turned()
            pause_s = await self._sweep()
            if self._lease.lapses != self._lapses or (
                anyio.current_time() - compared >= self._lease.length_s
            ):
                self._lapses = self._lease.lapses
                compared = anyio.current_time()
                self._consumer.compare()
                await self._register()
            await anyio.sleep(pause_s)

    async def _sweep(self) -> float:
        """Sweep once; return how long to wait before the next time."""
        try:
            found = await leases.sweep(
                self._connection,
                self._consumer.lane,
                self._agent.token,
                interval_s=self._interval_s,
                lease_s=self._lease.length_s,
                retention_s=self._retention_s,
                poison=self._poison,
            )
        except StoreError as error:
            self._emit(StoreFailed(during=f"sweep {self._consumer.lane}", error=str(error)))
            return self._interval_s

        self._noticed(self._consumer.lane, found.epoch)
        if self._gate is not None:
            self._gate.told(paused=found.paused)
            if found.trials is not None:
                self._gate.tries(canary=trials.concerns(found.trials, self._knows))
        for run_id in found.cancelled:
            self._consumer.cancel(run_id)
        for run_id in found.addressed:
            self._consumer.listener.hear(run_id)
        if found.posted:
            self._posted()
        if found.promoted or found.reclaimed or found.poisoned:
            self._emit(
                LaneSwept(
                    lane=str(self._consumer.lane),
                    promoted=found.promoted,
                    reclaimed=found.reclaimed,
                    poisoned=found.poisoned,
                )
            )
        if found.next_due is None:
            return self._interval_s

        return min(self._interval_s, max(0.005, found.next_due - found.now))

    async def _register(self) -> None:
        """Say again what this process is: the list may have been lost with Redis."""
        try:
            await agents.register(self._connection, self._consumer.lane, self._agent)
        except StoreError as error:
            self._emit(StoreFailed(during="register", error=str(error)))
