"""When a schedule fires: its cron line, its zone and its bounds, as moments on the time line.

The one module that reads cron lines, by way of the package cronsim, which does with changes of
the clock what Debian's cron does:

* a time that the clock skips fires at the first moment after the gap;
* a time that comes twice fires the first time only, unless its minutes or its hours begin with
  ``*``: those go by time that passes, and fire in both hours, or in neither of the skipped ones.

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
        if self._cron is not None:
            self._cron = _NICKNAMES.get(self._cron.strip().lower(), self._cron)
            self._simulated(0)

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
        return self._end is not None and tick > self._end

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
        for found in self._simulated(math.floor(moment)):
            tick = found.timestamp()
            if tick > last:
                last, repeats = tick, 0
                yield tick
            elif (repeats := repeats + 1) > _MOST_REPEATS:
                return

    def _simulated(self, moment: int) -> Iterator[datetime]:
        cronsim = _cronsim()
        begin = datetime.fromtimestamp(moment, self._zone)
        try:
            found: Iterator[datetime] = cronsim.CronSim(self._cron, begin)
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
