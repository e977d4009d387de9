"""Schedules, as their owners see them: make, look at, pause, trigger, delete.

A schedule that could never fire is refused before anything is written. Who changes one that others
change at the same time reads it again and tries anew; all of it is safe to say twice.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from millstream.client.asking import new_run, run_of
from millstream.client.auditing import Auditor, audited
from millstream.client.auditing import schedule as of_schedule
from millstream.client.handles import Enqueue, Run
from millstream.errors import InvalidSchedule, ScheduleConflict, UnknownSchedule
from millstream.model import ids
from millstream.model.limits import LIMITS, Limits
from millstream.model.schedule import Overlap, Progress, Schedule, ScheduleStatus, check_name
from millstream.store import schedules
from millstream.store.connection import Connection
from millstream.store.schedules import Stored, Written
from millstream.timetable import Timetable

T = TypeVar("T")
#: Raises `ScheduleConflict` or `UnknownSchedule` where what stands may not be replaced.
Over = Callable[[str, Stored | None], None]
#: How often one tries anew who is overtaken by others.
_TRIES = 20
#: Times that are shown ahead, in a list and by itself.
_AHEAD, _AHEAD_ALONE = 1, 5


class Insists(Protocol):
    """Asks again while Redis does not answer, as long as patience lasts."""

    async def __call__(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer."""


class Change(StrEnum):
    """What applying a schedule came to."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


class Applied(NamedTuple):
    """A schedule that was applied, and what that changed."""

    status: ScheduleStatus
    change: Change


class Schedules:
    """The schedules of one Redis: `Client.schedules`."""

    def __init__(
        self,
        connection: Connection,
        insist: Insists,
        enqueue: Callable[[Iterable[Enqueue]], Awaitable[Sequence[Run]]],
        *,
        random: Random,
        auditor: Auditor,
        limits: Limits = LIMITS,
    ) -> None:
        self._connection = connection
        self._insist = insist
        self._enqueue = enqueue
        self._random = random
        self.auditor = auditor
        self._limits = limits

    async def create(self, schedule: Schedule, *, paused: bool = False) -> ScheduleStatus:
        """Make a schedule; the same one again is returned as it stands.

        Raises `ScheduleConflict` when the name has another one, `InvalidSchedule` for what could
        never fire, `PayloadTooLarge` and others for arguments that no run could have.
        """
        applied = await self._put(schedule, paused=paused, over=_nothing)
        return applied.status

    async def change(self, before: Schedule, wanted: Schedule) -> ScheduleStatus:
        """Have a schedule say something else, if it still says ``before``; a paused one stays so.

        Raises `ScheduleConflict` when somebody else was faster, `UnknownSchedule` when it is gone,
        and whatever `create` raises. Its name cannot be changed.
        """
        if wanted.name != before.name:
            raise InvalidSchedule(
                wanted.name, f"it is the one called {before.name!r}, and stays so", field="name"
            )
        applied = await self._put(wanted, paused=False, over=functools.partial(_only, before))
        return applied.status

    async def apply(self, wanted: Iterable[Schedule]) -> Sequence[Applied]:
        """Make schedules, or change those that differ; a paused one stays paused.

        Nothing is written when one of them could never fire.
        """
        checked = [self._checked(schedule) for schedule in wanted]
        now = await self._now()
        for schedule in checked:
            _first(schedule, now)
        return [await self._put(schedule, paused=False, over=_anything) for schedule in checked]

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleStatus]:
        """Return schedules by name, those behind ``after``, at most ``limit``."""
        found: list[ScheduleStatus] = []
        while len(found) < limit:
            count = min(schedules.PAGE, limit - len(found))
            ask = functools.partial(schedules.page, self._connection, after, count)
            page = await self._insist(ask)
            if not page:
                break
            found += [_status(stored, _AHEAD) for stored in page]
            after = page[-1].name

        return found

    async def get(self, name: str) -> ScheduleStatus:
        """Return a schedule with its next times. Raises `UnknownSchedule`."""
        return _status(await self._read(name), _AHEAD_ALONE)

    @audited("pause schedule", of_schedule)
    async def pause(self, name: str) -> ScheduleStatus:
        """Let a schedule fire no more until it is resumed; runs that wait for it are forgotten."""

        def paused(_schedule: Schedule, progress: Progress, _now: float) -> Progress:
            return replace(progress, paused=True, next=None, waiting=())

        return await self._change(name, paused)

    @audited("resume schedule", of_schedule)
    async def resume(self, name: str) -> ScheduleStatus:
        """Let a paused schedule fire again, from its next time on: nothing is caught up."""

        def resumed(schedule: Schedule, progress: Progress, now: float) -> Progress:
            if not progress.paused:
                return progress
            return replace(progress, paused=False, next=_first(schedule, now), error=None)

        return await self._change(name, resumed)

    @audited("trigger schedule", of_schedule)
    async def trigger(self, name: str, *, id: str | None = None) -> Run:
        """Start a run of a schedule now, paused or not, beside whatever runs.

        Its times and the rule for overlaps are not touched. The id is an idempotency key, as in
        `Client.enqueue`.
        """
        schedule = (await self._read(name)).schedule
        run_id = id or f"{name}@{ids.new_run_id(self._random)}"
        (run,) = await self._enqueue([run_of(schedule, run_id)])
        return run

    @audited("delete schedule", of_schedule)
    async def delete(self, name: str) -> None:
        """Delete a schedule; its runs go on. Raises `UnknownSchedule`."""
        for _ in range(_TRIES):
            stored = await self._read(name)
            if await self._write(Written(name, stored.revision, None)):
                return

        raise _busy(name)

    # -- below ---------------------------------------------------------------------------------

    def _checked(self, schedule: Schedule) -> Schedule:
        """Return a schedule that can be written. Raises `UsageError`."""
        checked = schedule.checked()
        Timetable(checked)
        new_run(run_of(checked, checked.run_id(0.0)), self._limits, self._random)
        schedules.encode(checked)
        return checked

    @audited("write schedule", of_schedule)
    async def _put(self, schedule: Schedule, *, paused: bool, over: Over) -> Applied:
        wanted = self._checked(schedule)
        spec = schedules.encode(wanted)
        name = wanted.name
        for _ in range(_TRIES):
            stored = await self._insist(functools.partial(schedules.read, self._connection, name))
            if stored is not None and stored.spec == spec:
                return Applied(_status(stored, _AHEAD_ALONE), Change.UNCHANGED)
            over(name, stored)
            now = await self._now()
            progress = _begun(wanted, stored, now, paused=paused)
            revision = stored.revision if stored is not None else 0
            if await self._write(_written(wanted, revision, progress, now, spec)):
                change = Change.CREATED if stored is None else Change.UPDATED
                return Applied(await self.get(name), change)

        raise _busy(name)

    async def _change(
        self, name: str, change: Callable[[Schedule, Progress, float], Progress]
    ) -> ScheduleStatus:
        for _ in range(_TRIES):
            stored = await self._read(name)
            schedule = stored.schedule
            now = await self._now()
            progress = change(schedule, stored.progress, now)
            if progress == stored.progress or await self._write(
                _written(schedule, stored.revision, progress, now, None)
            ):
                return await self.get(name)

        raise _busy(name)

    async def _read(self, name: str) -> Stored:
        check_name(name)
        found = await self._insist(functools.partial(schedules.read, self._connection, name))
        if found is None:
            raise UnknownSchedule(name)
        return found

    async def _write(self, written: Written) -> bool:
        (done,) = await self._insist(
            functools.partial(schedules.write, self._connection, [written])
        )
        return done

    async def _now(self) -> float:
        return (await self._insist(functools.partial(schedules.due, self._connection, 0))).now


def _first(schedule: Schedule, now: float) -> float:
    tick = Timetable(schedule).after(now)
    if tick is None:
        raise InvalidSchedule(
            schedule.name,
            "it would never fire: no time of it is to come",
            field="cron" if schedule.end is None else "end",
        )
    return tick


def _nothing(name: str, stored: Stored | None) -> None:
    if stored is not None:
        raise ScheduleConflict(name, "is there already, and says something else")


def _anything(_name: str, _stored: Stored | None) -> None:
    return


def _only(before: Schedule, name: str, stored: Stored | None) -> None:
    if stored is None:
        raise UnknownSchedule(name)
    if stored.schedule != before:
        raise ScheduleConflict(name, "was changed by somebody else meanwhile; look at it again")


def _begun(wanted: Schedule, stored: Stored | None, now: float, *, paused: bool) -> Progress:
    """Return how far a schedule has come that is new, or that says something new.

    A time that has come and has not fired yet is kept, unless the times themselves are others.
    """
    first = _first(wanted, now)
    if stored is None:
        return Progress(paused=paused, next=None if paused else first)
    before = stored.progress
    if before.paused:
        return before
    same = _times(stored.schedule) == _times(wanted) and before.next is not None
    queued = wanted.overlap is Overlap.QUEUE
    return replace(
        before,
        next=before.next if same else first,
        waiting=before.waiting if queued else (),
        error=None,
    )


def _times(schedule: Schedule) -> tuple[object, ...]:
    return (schedule.cron, schedule.every, schedule.timezone, schedule.start, schedule.end)


def _written(
    schedule: Schedule, revision: int, progress: Progress, now: float, spec: bytes | None
) -> Written:
    due = Timetable(schedule).due(progress, now)
    return Written(schedule.name, revision, progress, due, spec)


def _status(stored: Stored, ahead: int) -> ScheduleStatus:
    schedule, progress = stored.schedule, stored.progress
    upcoming: tuple[float, ...] = ()
    if progress.next is not None:
        upcoming = (progress.next,)
        if ahead > 1:
            upcoming += tuple(Timetable(schedule).upcoming(progress.next, ahead - 1))
    return ScheduleStatus(
        schedule=schedule, progress=progress, revision=stored.revision, upcoming=upcoming
    )


def _busy(name: str) -> ScheduleConflict:
    return ScheduleConflict(name, "is being changed by others all the time; try again")
