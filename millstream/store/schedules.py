"""Where schedules live: all of them in one slot, apart from the queues.

A schedule is written under the revision it was read at, so that of two who change it one is told.
What follows from it, and when it is due, is computed by the callers: the store knows no calendar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from millstream.errors import InvalidSchedule, SealingError, UsageError
from millstream.model.limits import LIMITS
from millstream.model.schedule import Progress, Schedule
from millstream.store import codec
from millstream.store.connection import Connection
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place, opened

_PREFIX = "millstream:{schedules}:"
#: Sorted set: name -> when somebody has to look at it, in ms; and all names, each with score 0.
DUE, NAMES = f"{_PREFIX}due", f"{_PREFIX}names"
#: Counter: how often any schedule has been written.
REVISION = f"{_PREFIX}revision"
_FIELDS = ("revision", "spec", "progress")
#: Schedules that are read, or written, in one call.
PAGE = 100


@dataclass(frozen=True, slots=True)
class _Calendar:
    keys: tuple[str, ...] = field(default=(DUE, NAMES, REVISION))


_CALENDAR = _Calendar()


class Stored(NamedTuple):
    """A schedule as it stands in the store."""

    name: str
    revision: int
    #: In clear, unless it is sealed and cannot be opened here.
    spec: bytes
    progress: Progress
    #: Why it cannot.
    refusal: SealingError | None = None

    @property
    def schedule(self) -> Schedule:
        """What it says. Raises `SealingError`, or `InvalidSchedule` for a newer release's."""
        if self.refusal is not None:
            raise self.refusal
        try:
            return msgspec.json.decode(self.spec, type=Schedule)
        except msgspec.MsgspecError as error:
            raise InvalidSchedule(
                self.name, f"this release cannot read it ({error}); finish the upgrade"
            ) from error


class Written(NamedTuple):
    """A schedule to be written. ``revision`` is the one it was read at; 0: it is new."""

    name: str
    revision: int
    #: None: it is deleted.
    progress: Progress | None
    #: When a scheduler has to look at it, in epoch seconds; None: never.
    due: float | None = None
    #: None: as it stands.
    spec: bytes | None = None


class Due(NamedTuple):
    """The schedules whose time has come."""

    now: float
    schedules: list[Stored]
    #: When the next one is due, by the clock of Redis; None: there is no other.
    next_due: float | None


def encode(schedule: Schedule) -> bytes:
    """Return a schedule as it is stored. Raises `NotEncodable` or `PayloadTooLarge`."""
    return codec.encode(schedule, f"schedule {schedule.name!r}", LIMITS.schedule)


async def due(connection: Connection, count: int = PAGE) -> Due:
    """Read the schedules whose time has come, at most ``count``. Raises `StoreError`."""
    with connection.translated():
        now, next_ms, *rest = await call(connection.scripts, "due", _CALENDAR, [count])

    rows = [rest[at : at + 4] for at in range(0, len(rest), 4)]
    return Due(
        now=now / 1000,
        schedules=[_stored(connection, name.decode(), row) for name, *row in rows],
        next_due=next_ms / 1000 if next_ms else None,
    )


async def write(connection: Connection, written: Sequence[Written]) -> list[bool]:
    """Write schedules, at most `PAGE`; per schedule whether it was.

    False: it is another one by now. Raises `UsageError` when there are too many, `StoreError`.
    """
    args: list[Argument] = [LIMITS.schedules]
    for each in written:
        progress = b"" if each.progress is None else msgspec.json.encode(each.progress)
        due_ms = "" if each.due is None else round(each.due * 1000)
        spec = each.spec or b""
        if spec and connection.sealer is not None:
            spec = connection.sealer.seal(_place(each.name), spec)
        args += (each.name, each.revision, spec, progress, due_ms)
    with connection.translated():
        answers = await call(connection.scripts, "schedule", _CALENDAR, args)

    if -1 in answers:
        raise UsageError(f"there are {LIMITS.schedules:,} schedules already; delete some first")
    return [answer > 0 for answer in answers]


async def read(connection: Connection, name: str) -> Stored | None:
    """Return a schedule; None when there is none of that name. Raises `StoreError`."""
    with connection.translated():
        row = await connection.client.hmget(key(name), *_FIELDS)

    return _stored(connection, name, row) if row[0] else None


async def names(connection: Connection, after: str, count: int) -> list[str]:
    """Return names in order, those behind ``after``. Raises `StoreError`."""
    least = f"({after}" if after else "-"
    with connection.translated():
        found = await connection.client.zrangebylex(
            _CALENDAR.keys[1], least, "+", start=0, num=count
        )
    return [name.decode() for name in found]


async def page(connection: Connection, after: str = "", count: int = PAGE) -> list[Stored]:
    """Return schedules by name, those behind ``after``, at most `PAGE`. Raises `StoreError`."""
    found = await names(connection, after, min(count, PAGE))
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for name in found:
            pipe.hmget(key(name), *_FIELDS)
        rows = await pipe.execute() if found else []

    return [_stored(connection, name, row) for name, row in zip(found, rows, strict=True) if row[0]]


async def standing(
    connection: Connection, names: Sequence[str]
) -> list[tuple[bytes | None, float | None]]:
    """Return of schedules what they say, as it is stored, and when they are due."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for name in names:
            pipe.hget(key(name), "spec")
            pipe.zscore(_CALENDAR.keys[0], name)
        rows = await pipe.execute() if names else []

    return [
        (spec, None if due is None else due / 1000)
        for spec, due in zip(rows[::2], rows[1::2], strict=True)
    ]


def key(name: str) -> str:
    """Hash: a schedule, what it says and how far it has come."""
    return f"{_PREFIX}schedule:{name}"


def _place(name: str) -> Place:
    return Place("", "", "schedule", name)


def _stored(connection: Connection, name: str, row: Sequence[Any]) -> Stored:
    revision, spec, progress = row
    refusal = None
    try:
        spec = opened(connection.sealer, _place(name), spec)
    except SealingError as error:
        # It must not keep the others from being read.
        refusal = error
    return Stored(name, int(revision), spec, msgspec.json.decode(progress, type=Progress), refusal)
