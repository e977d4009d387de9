"""What a schedule does next: which of its ticks get a run, which wait, which are passed over.

Decides only; nothing is read and nothing is written here. The same schedule, progress and moment
give the same plan, so that two schedulers that work at the same time do the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from millstream.model.schedule import CatchUp, Overlap, Progress, Schedule
from millstream.timetable import Timetable

#: A tick that is fired so much too late is on time all the same: schedulers change, clocks differ.
ON_TIME_S = 60.0
#: Ticks that may wait for the end of a run; of more the newest are passed over.
MOST_WAITING = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done for one schedule, and how it stands then."""

    #: Ticks that get a run now, oldest first.
    fire: tuple[float, ...] = ()
    #: The run before is to be cancelled first.
    cancel: bool = False
    progress: Progress
    #: When it is to be looked at again; None: never.
    due: float | None
    #: Ticks passed over, by why: ``late``, ``overlap`` or ``full``.
    skipped: Mapping[str, int] = field(default_factory=dict)


def asks_for_run(schedule: Schedule, progress: Progress) -> bool:
    """Whether a plan depends on the run before having ended."""
    return progress.last_run is not None and schedule.overlap is not Overlap.ALLOW


def plan(schedule: Schedule, progress: Progress, now: float, *, busy: bool) -> Plan:
    """Return what follows at a moment. ``busy``: the run before has not ended."""
    times = Timetable(schedule)
    ready, coming = _ready(schedule, times, progress.next, now)
    timely = _caught_up(schedule, ready, now)
    skipped = {"late": len(ready) - len(timely)}
    waiting: tuple[float, ...] = ()
    cancel = False
    match schedule.overlap:
        case Overlap.ALLOW:
            fire = timely
        case Overlap.QUEUE:
            held = (*progress.waiting, *timely)
            fire = () if busy else held[:1]
            waiting = held[len(fire) :][:MOST_WAITING]
            skipped["full"] = len(held) - len(fire) - len(waiting)
        case Overlap.SKIP | Overlap.CANCEL:
            # Of several ticks at once the newest stands for all: the others would be overlapped.
            cancel = busy and schedule.overlap is Overlap.CANCEL and bool(timely)
            fire = timely[-1:] if cancel or not busy else ()
            skipped["overlap"] = len(timely) - len(fire)

    after = replace(
        progress,
        next=coming,
        waiting=waiting,
        last=fire[-1] if fire else progress.last,
        last_run=schedule.run_id(fire[-1]) if fire else progress.last_run,
        fired=progress.fired + len(fire),
        skipped=progress.skipped + sum(skipped.values()),
        error=None,
    )
    counted = {why: count for why, count in skipped.items() if count}
    return Plan(
        fire=tuple(fire), cancel=cancel, progress=after, due=times.due(after, now), skipped=counted
    )


def uncounted(progress: Progress, fired: Sequence[float]) -> list[float]:
    """Return those of the ticks that a schedule has passed over without having counted them.

    It was changed while they got their runs, as when it was paused just then. A tick that it will
    come to is left to that.
    """
    last = -math.inf if progress.last is None else progress.last
    coming = math.inf if progress.next is None else progress.next
    return [tick for tick in fired if last < tick < coming]


def counted(schedule: Schedule, progress: Progress, fired: Sequence[float]) -> Progress:
    """Return how far a schedule has come, with the runs of some more ticks."""
    return replace(
        progress,
        last=fired[-1],
        last_run=schedule.run_id(fired[-1]),
        fired=progress.fired + len(fired),
    )


def _ready(
    schedule: Schedule, times: Timetable, first: float | None, now: float
) -> tuple[Sequence[float], float | None]:
    """Return the ticks whose time has come, oldest first, and the one that comes after them."""
    if first is None:
        return (), None

    ticks = times.newest(first, now, max(schedule.catch_up_limit, MOST_WAITING))
    for place, tick in enumerate(ticks):
        # Of two ticks the later one may have the shorter delay: it waits for its turn.
        if tick + times.delay_s(tick) > now:
            return tuple(ticks[:place]), tick
    return tuple(ticks), first if first > now else times.after(now)


def _caught_up(schedule: Schedule, ready: Sequence[float], now: float) -> tuple[float, ...]:
    """Return those of the ticks that are not too late."""
    timely = tuple(tick for tick in ready if tick >= now - schedule.jitter - ON_TIME_S)
    match schedule.catch_up:
        case CatchUp.SKIP:
            return timely
        case CatchUp.LAST:
            return timely or tuple(ready[-1:])
        case CatchUp.ALL:
            return tuple(ready[-max(schedule.catch_up_limit, len(timely)) :])
