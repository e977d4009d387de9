"""A schedule: when a workflow is run again and again, and what becomes of it when that goes wrong.

Values only. What follows from a cron line is computed by `millstream.timetable`; what a scheduler
does with it is decided by `millstream_scheduler.plan`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import UnionType
from typing import Any, TypeVar

from millstream.errors import InvalidSchedule
from millstream.model import ids
from millstream.model.run import Priority

Word = TypeVar("Word", bound=StrEnum)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: The shortest interval, in seconds. What comes more often than that is a loop, not a schedule.
SHORTEST_S = 1.0
_YEAR_S = 366 * 86400.0
#: What some fields are; the others are words, or checked where a run is made of them.
_KINDS: Mapping[str, type | UnionType] = {
    "cron": str, "every": int | float, "timezone": str, "start": datetime, "end": datetime,
    "jitter": int | float, "catch_up_limit": int, "timeout": int | float,
}  # fmt: skip
#: The most runs that one round may start for a schedule which has fallen behind.
MOST_CAUGHT_UP = 1000


class Overlap(StrEnum):
    """What a tick does while the run before it has not ended. Stored; never rename one."""

    SKIP = "skip"  # the tick is passed over
    QUEUE = "queue"  # it waits until the run before has ended
    CANCEL = "cancel"  # the run before is cancelled
    ALLOW = "allow"  # both run


class CatchUp(StrEnum):
    """What becomes of ticks for which no scheduler was there. Stored; never rename one."""

    SKIP = "skip"
    LAST = "last"  # one run for all of them
    ALL = "all"  # a run for each, up to the schedule's bound


@dataclass(frozen=True, slots=True)
class Schedule:
    """A workflow that is run at the times of a cron line, or at an interval.

    ``start`` and ``end`` bound its times; one that has no offset is meant in ``timezone``.
    """

    name: str
    workflow: str
    arguments: Any = None
    _: KW_ONLY
    #: Five fields, or six with the seconds first; or @hourly, @daily, @weekly, @monthly, @yearly.
    cron: str | None = None
    #: Seconds between two times, counted from ``start``, else from the Unix epoch.
    every: float | None = None
    #: The zone in which the cron line is read, by its IANA name.
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    #: A run starts at most so many seconds after its time: the same delay whoever computes it.
    jitter: float = 0.0
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LAST
    #: With `CatchUp.ALL`: how many at most, the newest.
    catch_up_limit: int = 100
    queue: str = "default"
    priority: Priority = Priority.NORMAL
    tenant: str | None = None
    timeout: float | None = None
    version: str | None = None

    def checked(self) -> Schedule:
        """Return it as it is stored: defaults filled in, words made enums.

        Raises `InvalidSchedule`, or `UsageError`.
        """
        check_name(self.name)
        ids.check_queue(self.queue)
        self._check_kinds()
        if (self.cron is None) == (self.every is None):
            raise InvalidSchedule(
                self.name, "give it either a cron line or an interval (every)", field="cron"
            )
        if self.every is not None and not SHORTEST_S <= self.every <= 10 * _YEAR_S:
            raise self._outside("every", self.every, f"{SHORTEST_S:g} s to ten years")
        if not 0 <= self.jitter <= 86400:
            raise self._outside("jitter", self.jitter, "0 s to a day")
        if not 1 <= self.catch_up_limit <= MOST_CAUGHT_UP:
            raise self._outside("catch_up_limit", self.catch_up_limit, f"1 to {MOST_CAUGHT_UP}")

        return replace(
            self,
            arguments={} if self.arguments is None else self.arguments,
            overlap=_word(self, Overlap, self.overlap),
            catch_up=_word(self, CatchUp, self.catch_up),
            priority=_word(self, Priority, self.priority),
        )

    def run_id(self, tick: float) -> str:
        """Return the id of the run of a tick: the same whoever computes it."""
        return f"{self.name}@{stamp(tick)}"

    def _check_kinds(self) -> None:
        """Refuse what a scheduler could not read back."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            sound = isinstance(value, kind) and not isinstance(value, bool)
            if value is not None and not sound:
                raise InvalidSchedule(self.name, f"{name} may not be {value!r}")

    def _outside(self, name: str, value: float, bounds: str) -> InvalidSchedule:
        return InvalidSchedule(self.name, f"{name} is {value:g}, and must be {bounds}", field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a schedule has come. Times are epoch seconds by the clock of Redis."""

    #: The tick that comes next; None: none is left, or it is paused.
    next: float | None = None
    paused: bool = False
    #: Ticks that wait for the end of the run before, oldest first.
    waiting: tuple[float, ...] = ()
    #: The newest tick that got a run, and the id of that run.
    last: float | None = None
    last_run: str | None = None
    fired: int = 0
    #: Ticks that were passed over; after a long outage at least so many.
    skipped: int = 0
    #: Why it cannot fire, while it cannot.
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """What is known of a schedule, as an operator sees it."""

    schedule: Schedule
    progress: Progress
    #: Grows with every change, of what it says or of how far it has come.
    revision: int
    #: The next times at which it fires, in epoch seconds. None of them while it is paused.
    upcoming: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return self.schedule.name

    @property
    def paused(self) -> bool:
        """Whether it fires only when it is triggered."""
        return self.progress.paused


def check_name(name: str) -> str:
    """Return the name of a schedule, or raise `InvalidSchedule`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSchedule(
            name,
            "its name must be 1 to 100 of letters, digits and . _ -, a letter or digit first",
            field="name",
        )
    return name


def stamp(tick: float) -> str:
    """Return a tick as text, in UTC: ``2026-11-26T02:00:00Z``."""
    moment = datetime.fromtimestamp(tick, UTC)
    unit = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=unit) + "Z"


def _word(schedule: Schedule, kind: type[Word], value: str) -> Word:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidSchedule(
            schedule.name, f"{kind.__name__.lower()} {value!r} is not one of {known}"
        ) from None
