"""When a schedule fires: its cron line, its zone and its bounds, as moments on the time line.

The one module that reads cron lines, by way of the package cronsim, which does with changes of
the clock what Debian's cron does:

* a time that the clock skips fires at the first moment after the gap;
* a time that comes twice fires the first time only, unless its minutes or its hours begin with
  ``*``: those go by time that passes, and fire in both hours, or in neither of the skipped ones.

A line with seconds fires at these seconds of the minutes that the rest of it gives, so that a
change of the clock means the same for both kinds.

Promise: pure. Two processes with the same time zone data compute the same moments, from wherever
they begin. An interval needs neither the package nor a zone.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo

from millstream.errors import InvalidSchedule, MissingExtra
from millstream.model.schedule import Progress, Schedule

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: How often a schedule is looked at whose ticks wait for the end of a run.
RECHECK_S = 0.5
#: How far back the newest ticks are looked for at first; doubled until there are enough.
_LOOK_BACK_S = 120.0
#: A cron line gives a moment again, or an earlier one, at most so often: around a change of
#: the clock.
_MOST_REPEATS = 1000
_HOUR_S, _DAY_S = 3600, 86400
#: The year 9999, in which time ends for a datetime.
_LATEST = 253_370_764_800


class Timetable:
    """The times of one schedule. Raises `InvalidSchedule`, or `MissingExtra`, when it has none."""

    def __init__(self, schedule: Schedule) -> None:
        self._name = schedule.name
        self._jitter_s = schedule.jitter
        self._cron = schedule.cron
        self._every_ms = round((schedule.every or 0) * 1000)
        self._zone = _zone(schedule)
        self._start = _moment(schedule.start, self._zone)
        self._end = _moment(schedule.end, self._zone)
        if self._start is not None and self._end is not None and self._end < self._start:
            raise InvalidSchedule(schedule.name, "it ends before it starts", field="end")
        self._seconds = [0]
        if self._cron is not None:
            self._cron = _NICKNAMES.get(self._cron.strip().lower(), self._cron)
            read = self._simulated(0)
            fields = self._cron.split()
            if len(fields) == 6:
                self._seconds, self._cron = sorted(read.seconds), " ".join(fields[1:])

    def after(self, moment: float) -> float | None:
        """Return the first tick after a moment; None when there is none, or not in 50 years."""
        return next(iter(self.upcoming(moment, 1)), None)

    def newest(self, first: float, last: float, limit: int) -> list[float]:
        """Return the ticks from ``first`` to ``last``, of more than ``limit`` the newest ones.

        ``first`` is a tick. Costs about as much as there are ticks to return, however long the
        time between is.
        """
        back_s = _LOOK_BACK_S
        while True:
            begin = max(first, last - back_s)
            found: deque[float] = deque(maxlen=limit)
            for tick in self._after(begin - 0.001):
                if tick > last or self._over(tick):
                    break
                found.append(tick)
            if len(found) == limit or begin == first:
                return list(found)
            back_s *= 2

    def delay_s(self, tick: float) -> float:
        """Return how long after a tick its run starts: within the jitter, and always the same."""
        if not self._jitter_s:
            return 0.0
        seed = hashlib.blake2b(f"{self._name}@{tick:.3f}".encode(), digest_size=8).digest()
        return round(self._jitter_s * (int.from_bytes(seed, "big") / 2**64), 3)

    def due(self, progress: Progress, now: float) -> float | None:
        """Return when the schedule is to be looked at, as far as it has come; None: never."""
        moments = [now + RECHECK_S] if progress.waiting else []
        if progress.next is not None:
            moments.append(progress.next + self.delay_s(progress.next))
        return min(moments, default=None)

    def upcoming(self, moment: float, count: int) -> list[float]:
        """Return the next ticks after a moment, at most ``count``."""
        if self._start is not None and moment < self._start:
            # The first tick may be the start itself.
            moment = self._start - 0.001
        found = islice(self._after(moment), count)
        return list(takewhile(lambda tick: not self._over(tick), found))

    # -- below ---------------------------------------------------------------------------------

    def _over(self, tick: float) -> bool:
        return tick > (_LATEST if self._end is None else min(self._end, _LATEST))

    def _after(self, moment: float) -> Iterator[float]:
        return self._intervals(moment) if self._cron is None else self._crons(moment)

    def _intervals(self, moment: float) -> Iterator[float]:
        origin_ms = round((self._start or 0.0) * 1000)
        passed = math.floor((round(moment * 1000) - origin_ms) / self._every_ms)
        while True:
            passed += 1
            yield (origin_ms + passed * self._every_ms) / 1000

    def _crons(self, moment: float) -> Iterator[float]:
        # A local time that comes twice is told from its twin by nothing that a cron line knows:
        # begun in the second hour, it gives times of the first one again.
        last, repeats = moment, 0
        # Of the minute that is under way some seconds may be left.
        for minute in self._minutes(math.floor(moment / 60) * 60 - 1):
            ticks = [minute + second for second in self._seconds if minute + second > last]
            if ticks:
                last, repeats = ticks[-1], 0
                yield from ticks
            elif (repeats := repeats + 1) > _MOST_REPEATS:
                return

    def _minutes(self, begin: int) -> Iterator[float]:
        """Yield the minutes of a line after a moment; those of a second hour may come again.

        Hours are passed over whole, which leads astray where a clock was changed within one: then
        it is begun anew there, and at the next full hour.
        """
        while True:
            for found in self._simulated(begin):
                tick = found.timestamp()
                anew = next((at for at in self._rough(int(tick)) if begin < at < tick), None)
                if anew is not None:
                    begin = anew
                    break
                begin = max(begin, int(tick))
                yield tick
            else:
                return

    def _rough(self, tick: int) -> tuple[int, ...]:
        """Return from where to begin anew after a change of the clock, a day ago at most.

        Nowhere, if it was changed at a full hour to a full hour.
        """
        low, high = tick - _DAY_S, tick
        before = self._offset_s(low)
        if self._offset_s(high) == before:
            return ()
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset_s(middle) == before:
                low = middle
            else:
                high = middle
        left = -(high + self._offset_s(high)) % _HOUR_S
        full = not left and (high + before) % _HOUR_S == 0
        return () if full else (high - 1, high + left - 1)

    def _offset_s(self, moment: int) -> int:
        offset = datetime.fromtimestamp(moment, self._zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())

    def _simulated(self, moment: int) -> Any:
        cronsim = _cronsim()
        begin = datetime.fromtimestamp(min(moment, _LATEST), self._zone)
        try:
            found: Any = cronsim.CronSim(self._cron, begin)
        except cronsim.CronSimError as error:
            raise InvalidSchedule(
                self._name, f"cron line {self._cron!r} cannot be read: {error}", field="cron"
            ) from None
        return found


def _zone(schedule: Schedule) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.timezone)
    except (KeyError, ValueError, OSError, TypeError):
        raise InvalidSchedule(
            schedule.name,
            f"time zone {schedule.timezone!r} is not known here; use an IANA name such as"
            " Europe/Berlin (where a system has no zones: pip install tzdata)",
            field="timezone",
        ) from None


def _moment(value: datetime | None, zone: ZoneInfo) -> float | None:
    if value is None:
        return None
    return (value.replace(tzinfo=zone) if value.tzinfo is None else value).timestamp()


def _cronsim() -> Any:
    try:
        import cronsim  # noqa: PLC0415 - only cron lines need it
    except ModuleNotFoundError:
        raise MissingExtra("schedules", "cronsim") from None
    return cronsim
