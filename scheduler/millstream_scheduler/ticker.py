"""Fire the schedules: one run for every tick, however many schedulers try, and whoever dies.

Promise: a tick's run has an id that follows from the tick, so that enqueueing it again is no
second run; and a schedule moves on only under the revision at which it was read, after its run
stands. Whatever is cut off in between is done again by the next leader, and finds what there is. A
schedule that somebody changes in between has its runs counted all the same.

A round costs what is due, a page at a time: one call to read, one a queue to enqueue, one to
write. The clock is that of Redis.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import anyio
import anyio.lowlevel

from millstream.client.asking import new_run, run_of
from millstream.client.queues import Queues
from millstream.errors import MillstreamError, QueueFull, StoreError, UsageError
from millstream.events import Emit, ScheduleFailed, TickFired, TicksSkipped
from millstream.model.limits import LIMITS
from millstream.model.schedule import Schedule
from millstream.store import runs, schedules
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.schedules import Stored, Written
from millstream.timetable import Timetable
from millstream_scheduler.outage import Outage
from millstream_scheduler.plan import Plan, asks_for_run, counted, plan, uncounted
from millstream_scheduler.term import Term

#: How soon a schedule is noticed that was made, or moved forward, meanwhile.
LOOK_S = 1.0
#: How long one that cannot fire is left alone.
_BROKEN_S = 60.0
#: The same where the queue is full: a tick should be tried again while it is on time.
_FULL_S = 5.0
#: How often one tries anew who is overtaken by others.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Planned:
    stored: Stored
    schedule: Schedule
    plan: Plan
    runs: Sequence[runs.NewRun]


class Ticker:
    """The duty of firing what is due during one term. ``tick_forever`` must run."""

    def __init__(
        self,
        connection: Connection,
        queues: Queues,
        term: Term,
        *,
        retention_s: float,
        random: Random,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._term = term
        self._retention_s = retention_s
        self._random = random
        self._emit = emit
        self._mono = mono
        self._outage = Outage("tick", emit, mono)
        #: What was planned in a round that was cut off: its runs may stand, and not count.
        self._cut_off: Sequence[_Planned] = ()

    async def tick_forever(self) -> None:
        """Fire what is due, as soon as it is."""
        while True:
            pause_s = LOOK_S
            if self._term.trusted:
                try:
                    pause_s = await self._tick()
                except StoreError as error:
                    self._outage.failed(error)
                else:
                    self._outage.answered()
            await anyio.sleep(pause_s)

    async def fire_due(self) -> None:
        """Fire what is due now, a page at a time, whoever leads. Raises `StoreError`."""
        while await self._tick() <= 0:
            await anyio.lowlevel.checkpoint()

    async def _tick(self) -> float:
        """Do one page; return how long to wait before the next."""
        asked = self._mono()
        for each in self._cut_off:
            await self._count(each)
        self._cut_off = ()
        found = await schedules.due(self._connection)
        moments = await self._advance(found.schedules, found.now) if found.schedules else []
        if found.next_due is not None:
            moments.append(found.next_due)
        passed_s = self._mono() - asked
        return min(LOOK_S, max(0.0, min(moments, default=math.inf) - found.now - passed_s))

    async def _advance(self, found: Sequence[Stored], now: float) -> list[float]:
        """Fire what is due of some schedules; return when they are due again."""
        planned: list[_Planned] = []
        written: list[Written] = []
        for stored in found:
            try:
                each = await self._plan(stored, now)
            except UsageError as error:
                written.append(self._let_alone(stored, now + _BROKEN_S, error))
            else:
                planned.append(each)
        # First the runs, then the schedules: what is cut off in between is done again.
        self._cut_off = planned
        full = await self._fire(planned)
        fired: list[_Planned] = []
        for each in planned:
            stored = each.stored
            refused = next((full[new.id] for new in each.runs if new.id in full), None)
            if refused is None:
                fired.append(each)
                written.append(
                    Written(stored.name, stored.revision, each.plan.progress, each.plan.due)
                )
            else:
                # Its ticks are not lost: they are caught up with, as the schedule says.
                full_queue = QueueFull(each.schedule.queue, *refused)
                written.append(self._let_alone(stored, now + _FULL_S, full_queue))
        done = await schedules.write(self._connection, written)
        self._cut_off = ()
        ours = {each.name for each, moved in zip(written, done, strict=True) if moved}
        self._tell([each for each in fired if each.stored.name in ours], now)
        for each in fired:
            if each.stored.name not in ours:
                await self._count(each)
        return [each.due for each in written if each.due is not None]

    # -- decide --------------------------------------------------------------------------------

    async def _plan(self, stored: Stored, now: float) -> _Planned:
        """Return what is to be done. Raises `UsageError` for what cannot be done here."""
        schedule = stored.schedule
        busy = asks_for_run(schedule, stored.progress) and await self._goes_on(
            schedule.queue, stored.progress.last_run or ""
        )
        found = plan(schedule, stored.progress, now, busy=busy)
        return _Planned(stored, schedule, found, [self._new(schedule, x) for x in found.fire])

    def _let_alone(self, stored: Stored, until: float, error: MillstreamError) -> Written:
        """Come back later, and let it not keep the others from firing."""
        self._emit(ScheduleFailed(schedule=stored.name, error=f"{type(error).__name__}: {error}"))
        failed = replace(stored.progress, error=str(error)[: LIMITS.error])
        return Written(stored.name, stored.revision, failed, until)

    async def _goes_on(self, queue: str, run_id: str) -> bool:
        async def ask(lane: Lane) -> bool | None:
            status = await runs.status(self._connection, lane, run_id)
            return None if status is None else not status.state.final

        # One that is unknown has ended, and its record has expired.
        return bool(await self._queues.look(queue, run_id, ask, None))

    # -- act -----------------------------------------------------------------------------------

    async def _fire(self, planned: Sequence[_Planned]) -> dict[str, runs.Full]:
        """Enqueue what is due; return the runs that their queues have no room for."""
        full: dict[str, runs.Full] = {}
        by_queue: dict[str, list[runs.NewRun]] = defaultdict(list)
        for each in planned:
            if each.plan.cancel:
                await self._cancel(each.schedule.queue, each.stored.progress.last_run or "")
            by_queue[each.schedule.queue] += each.runs
        for queue, news in by_queue.items():
            # An id that is known, whosever it is, has had its tick.
            sent = await self._queues.send_all(queue, news)
            full |= {new.id: answer for new, answer in sent if isinstance(answer, runs.Full)}
        return full

    async def _count(self, planned: _Planned) -> None:
        """Count the runs of a schedule that somebody may have changed since it was read."""
        for _ in range(_TRIES if planned.plan.fire else 0):
            stored = await schedules.read(self._connection, planned.stored.name)
            if stored is None:
                return
            missed = uncounted(stored.progress, planned.plan.fire)
            ticks = [tick for tick in missed if await self._stands(planned.schedule, tick)]
            if not ticks:
                return
            now = (await schedules.due(self._connection, 0)).now
            progress = counted(planned.schedule, stored.progress, ticks)
            due = Timetable(stored.schedule).due(progress, now)
            written = Written(stored.name, stored.revision, progress, due)
            if (await schedules.write(self._connection, [written]))[0]:
                self._tell_fired(planned, ticks, now)
                return

    async def _stands(self, schedule: Schedule, tick: float) -> bool:
        async def ask(lane: Lane) -> bool:
            return await runs.status(self._connection, lane, schedule.run_id(tick)) is not None

        return await self._queues.look(schedule.queue, schedule.run_id(tick), ask, False)

    async def _cancel(self, queue: str, run_id: str) -> None:
        async def ask(lane: Lane) -> str:
            (answer,) = await runs.cancel(self._connection, lane, [run_id], self._retention_s)
            return answer

        await self._queues.look(queue, run_id, ask, "")

    def _new(self, schedule: Schedule, tick: float) -> runs.NewRun:
        return new_run(run_of(schedule, schedule.run_id(tick)), LIMITS, self._random)

    # -- tell ----------------------------------------------------------------------------------

    def _tell(self, planned: Sequence[_Planned], now: float) -> None:
        for each in planned:
            self._tell_fired(each, each.plan.fire, now)
            for why, count in each.plan.skipped.items():
                self._emit(TicksSkipped(schedule=each.stored.name, reason=why, count=count))

    def _tell_fired(self, planned: _Planned, ticks: Sequence[float], now: float) -> None:
        for tick in ticks:
            self._emit(
                TickFired(
                    schedule=planned.stored.name,
                    run_id=planned.schedule.run_id(tick),
                    workflow=planned.schedule.workflow,
                    queue=planned.schedule.queue,
                    late_s=max(0.0, now - tick),
                )
            )
