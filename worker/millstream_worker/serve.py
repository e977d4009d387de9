"""The life of a worker process: take work, drain, leave.

Three things live here, and each must outlive the next, so each is a block inside the block that
outlives it:

    support      leases are renewed, lanes swept and commits written until the very end
      running    runs already taken; they get the grace once intake stops
        intake   taking and reading; the first thing a signal stops

Read the indentation of `Worker.serve` and you have read the order of the shutdown.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed, WorkerDraining, WorkerStarted, WorkerStopped
from millstream.store import agents, deliveries, leases
from millstream.store.agents import Agent
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_worker.consumer import Consumer
from millstream_worker.dispatcher import Dispatcher
from millstream_worker.held import Held, Stop
from millstream_worker.lease import Lease
from millstream_worker.sweeper import Sweeper
from millstream_worker.tasks import Tasks

#: How long releasing and the last commit may take when Redis answers slowly.
RELEASE_S = 5.0
#: The same, of runs that did not end when they were released.
GIVE_UP_S = 2.0
#: How long giving up the lease may take: it spares the others a wait, no more.
RESIGN_S = 1.0


class Renews(Protocol):
    """Keeps the leases of the process."""

    def start(self) -> None:
        """Begin to renew."""

    def stop(self) -> None:
        """Renew no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneDuties:
    """What serves one lane."""

    consumer: Consumer
    sweeper: Sweeper
    dispatcher: Dispatcher
    execute: Callable[[Held], Coroutine[Any, Any, None]]


class MoreLanes(Protocol):
    """Knows when there are other lanes to serve, and how each is served."""

    async def awaited(self) -> Sequence[Lane]:
        """Return the lanes of a queue that are to be served, once others are."""

    def begin(self, lane: Lane) -> LaneDuties:
        """Have the lease renewed in a lane from now on, and return what serves it."""

    def end(self, lane: Lane) -> None:
        """Have the lease renewed in a lane no more."""


class Worker:
    """A worker process, put together. ``serve`` runs it."""

    def __init__(
        self,
        connection: Connection,
        agent: Agent,
        lanes: Sequence[LaneDuties],
        renewer: Renews,
        lease: Lease,
        *,
        more_lanes: MoreLanes,
        emit: Emit,
        grace_s: float,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._agent = agent
        self._lanes = list(lanes)
        #: What is done for each lane, so that it can be ended.
        self._scopes: dict[Lane, list[anyio.CancelScope]] = {}
        self._more_lanes = more_lanes
        self._renewer = renewer
        self._lease = lease
        self._emit = emit
        self._grace_s = grace_s
        self._on_drain = on_drain
        self._tasks = Tasks(self._escape)
        self._escaped: BaseException | None = None
        self._support: TaskGroup | None = None
        self.drain = anyio.Event()
        #: Set once the worker takes work.
        self.started = anyio.Event()
        #: Told a second time to stop: the grace is over at once.
        self.hurry = anyio.Event()

    @property
    def token(self) -> str:
        """The name of this process in the store."""
        return self._agent.token

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that are served."""
        return tuple(duties.consumer.lane for duties in self._lanes)

    @property
    def stuck(self) -> bool:
        """Whether a run was given up that does not end although it was told to."""
        return len(self._tasks) > 0

    def stop_renewing(self) -> None:
        """Stop the renewals although the worker did not end in good order."""
        self._renewer.stop()

    def abandon(self) -> None:
        """Write nothing more for any run: the process is as good as dead."""
        for lane in self._lanes:
            for held in list(lane.consumer.held.values()):
                held.stop(Stop.LOST)

    async def serve(self) -> None:
        """Run until told to drain, then drain and return."""
        released, released_by = 0, 0.0
        async with anyio.create_task_group() as support:
            self._support = support
            self._renewer.start()
            try:
                async with anyio.create_task_group() as intake:
                    intake.start_soon(self._take_in, support, intake)
                    await self.drain.wait()
                    self._close()
                    intake.cancel_scope.cancel()
                # A read may have brought something in the moment in which it was ended.
                self._compare()
                released = await self._finish()
                # Redis may be away: then the lease runs out, and others take what is left.
                released_by = anyio.current_time() + RELEASE_S
                await self._tasks.end(released_by)
                released_by = max(released_by, self._give_up())
            finally:
                # Cut short: whatever still runs must write nothing, as if the process were gone.
                if self._tasks:
                    self.abandon()
                    await self._tasks.cancel()
                    self._tasks.disown()
            await self._leave(released_by)
            support.cancel_scope.cancel()
        if self._escaped is not None:
            raise self._escaped
        self._emit(WorkerStopped(released=released))

    def _escape(self, error: BaseException) -> None:
        """A mistake of ours: no run may do this. The worker ends, and its runs go on elsewhere."""
        self._escaped = error
        if self._support is not None:
            self._support.cancel_scope.cancel()

    # -- in order ------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Make what the lanes need, however long Redis is away."""
        for lane in self._lanes:
            await self._prepare_lane(lane.consumer.lane)

    async def _prepare_lane(self, lane: Lane, lease_s: float = 0.0) -> None:
        while True:
            try:
                await deliveries.ensure_groups(self._connection, lane)
                await agents.register(self._connection, lane, self._agent)
                if lease_s:
                    await leases.renew(self._connection, [lane], self.token, lease_s)
                return
            except StoreError as error:
                self._emit(StoreFailed(during="start", error=str(error)))
                await self._connection.reset()
                await anyio.sleep(0.5)

    async def _take_in(self, support: TaskGroup, intake: TaskGroup) -> None:
        """Take work once everything it needs stands."""
        await self._prepare()
        for lane in self._lanes:
            self._support_lane(lane, support)
        await self._lease.until_trusted()
        for lane in self._lanes:
            self._open(lane, intake)
        intake.start_soon(self._take_in_more, support, intake)
        self.started.set()
        self._emit(
            WorkerStarted(
                token=self._agent.token,
                pid=self._agent.pid,
                queues=tuple(dict.fromkeys(lane.queue for lane in self.lanes)),
                workflows=self._agent.workflows,
                concurrency=self._agent.concurrency,
            )
        )

    async def _take_in_more(self, support: TaskGroup, intake: TaskGroup) -> None:
        """Serve the lanes that a queue gets meanwhile, and no more those that it had."""
        while True:
            lanes = await self._more_lanes.awaited()
            there = {duties.consumer.lane: duties for duties in self._lanes}
            for lane, duties in there.items():
                if lane.queue == lanes[0].queue and lane not in lanes:
                    await self._retire(duties)
            for lane in lanes:
                if lane not in there:
                    # Alive there first: whoever reads without a lease would not be missed.
                    await self._prepare_lane(lane, self._lease.length_s)
                    # Nothing is waited for from here on: a lane is served whole or not at all.
                    duties = self._more_lanes.begin(lane)
                    self._lanes.append(duties)
                    self._support_lane(duties, support)
                    self._open(duties, intake)

    async def _retire(self, duties: LaneDuties) -> None:
        """Serve a lane no more that accepts nothing and holds nothing, not even a record."""
        consumer = duties.consumer
        if consumer.held or not consumer.idle:
            return  # it is looked at again
        self._lanes.remove(duties)
        self._more_lanes.end(consumer.lane)
        for scope in self._scopes.pop(consumer.lane):
            scope.cancel()
        consumer.leave()
        await self._resign(consumer.lane)

    def _support_lane(self, lane: LaneDuties, support: TaskGroup) -> None:
        """Start what must outlive the runs of a lane."""
        for work in (
            lane.consumer.commit_forever,
            lane.sweeper.sweep_forever,
            lane.consumer.listener.listen_forever,
            lane.dispatcher.dispatch_forever,
        ):
            support.start_soon(self._for_lane, lane, work)

    async def _for_lane(self, lane: LaneDuties, work: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope() as scope:
            self._scopes.setdefault(lane.consumer.lane, []).append(scope)
            await work()

    def _open(self, lane: LaneDuties, intake: TaskGroup) -> None:
        if self.drain.is_set():
            return  # in this very turn: what has been closed must not be opened any more
        lane.consumer.open(functools.partial(self._start_run, lane))
        intake.start_soon(self._for_lane, lane, lane.consumer.read_forever)

    def _start_run(self, lane: LaneDuties, held: Held) -> None:
        self._tasks.start(lane.execute(held))

    def _close(self) -> None:
        self._on_drain()
        for lane in self._lanes:
            lane.consumer.close()
        holding = sum(len(lane.consumer.held) for lane in self._lanes)
        self._emit(WorkerDraining(holding=holding, grace_s=self._grace_s))

    async def _finish(self) -> int:
        """Let runs end within the grace; release those that do not. Return how many."""
        with anyio.move_on_after(self._grace_s):
            async with anyio.create_task_group() as group:
                group.start_soon(self._until_empty, group)
                group.start_soon(self._until_hurried, group)

        left = [held for lane in self._lanes for held in lane.consumer.held.values()]
        for held in left:
            held.stop(Stop.RELEASED)
        return len(left)

    def _give_up(self) -> float:
        """Release the runs that do not end although they were told to; return until when.

        Left to the lease they would count as the work of a worker that died.
        """
        if not self._tasks:
            return 0.0
        for lane in self._lanes:
            for held in list(lane.consumer.held.values()):
                held.give_up()
        return anyio.current_time() + GIVE_UP_S

    async def _until_empty(self, group: TaskGroup) -> None:
        while any(lane.consumer.held or not lane.consumer.idle for lane in self._lanes):
            await anyio.sleep(0.02)
        group.cancel_scope.cancel()

    async def _until_hurried(self, group: TaskGroup) -> None:
        await self.hurry.wait()
        group.cancel_scope.cancel()

    async def _leave(self, released_by: float) -> None:
        """Write what is left and give up the lease, so that nobody waits for it to run out."""
        self._compare()
        with anyio.CancelScope(deadline=released_by):
            await self._until_idle()
        self._renewer.stop()
        with anyio.move_on_after(RESIGN_S):
            for lane in self._lanes:
                await self._resign(lane.consumer.lane)

    async def _resign(self, lane: Lane) -> None:
        try:
            await leases.resign(self._connection, lane, self._agent.token)
        except StoreError as error:
            self._emit(StoreFailed(during="resign", error=str(error)))

    def _compare(self) -> None:
        """Find out what the store says is held here, and hand back what is not known of."""
        for lane in self._lanes:
            lane.consumer.compare()

    async def _until_idle(self) -> None:
        while any(not lane.consumer.idle for lane in self._lanes):
            await anyio.sleep(0.02)


async def drain_on_signal(worker: Worker) -> None:
    """Drain at the first SIGTERM or SIGINT; at the second, release at once."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if worker.drain.is_set():
                worker.hurry.set()
            worker.drain.set()
