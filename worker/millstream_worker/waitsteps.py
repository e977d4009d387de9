"""Wait for a time or for a message: the record of the wait is set up once, and closed once.

    waiting  ->  the message or the end of the time  ->  record

A message leaves the mailbox in the script that writes it into the journal, and the end of the time
is written by the script that found no message: so one of the two is recorded, never both, and a
crash between never loses or doubles a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio

from millstream.errors import SealKeyMissing, SignalTimeout, StepError, UsageError
from millstream.model.journal import Record, RecordStatus
from millstream.model.message import CHILDREN, MessageKind
from millstream_worker.mailbox import Mailbox
from millstream_worker.parking import Parking
from millstream_worker.steps import Recorder, Step, replayed

#: The year 9999, which is as far as a datetime goes.
_LATEST = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Due:
    """When a wait ends: so many seconds after it began, or at a time."""

    seconds: float = 0.0
    at: float | None = None

    def reckoned(self, began: float) -> float:
        """Return the time, in epoch seconds."""
        return began + self.seconds if self.at is None else self.at


@dataclass(frozen=True, slots=True)
class Waits:
    """What every wait of one run needs."""

    recorder: Recorder
    parking: Parking
    mailbox: Mailbox


def moment(when: float | datetime) -> float:
    """Return a time in epoch seconds, or raise `UsageError`."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise UsageError("ctx.sleep_until takes a datetime with a time zone, or epoch seconds")
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, int | float) or not 0 <= when < _LATEST:
        raise UsageError(f"ctx.sleep_until takes epoch seconds or a datetime, not {when!r}")
    return float(when)


def checked_timeout(seconds: float | None) -> float | None:
    """Return for how long to wait, or raise `UsageError`."""
    if seconds is not None and not 0 <= seconds < 10 * 366 * 86400:
        raise UsageError(f"a timeout is seconds from 0 to ten years, not {seconds!r}")
    return seconds


async def sleep(
    recorder: Recorder, parking: Parking, step: Step, record: Record | None, due: Due
) -> None:
    """Wait for a time."""
    if record is None:
        await recorder.ready()
        began = recorder.wall()
        until = due.reckoned(began)
        record = recorder.record(
            step, RecordStatus.WAITING, until, began=began, took_s=max(0.0, until - began)
        )
        await recorder.write(step, record)
    with parking.waiting(record.value):
        # The clock of Redis and the loop's may drift apart meanwhile: look again.
        while (left := record.value - recorder.wall()) > 0:
            await anyio.sleep(min(left, 60.0))


def together(awaits: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a run awaits, all children under one name: there may be thousands."""
    mark = f"{CHILDREN}:"
    return tuple(dict.fromkeys(CHILDREN if x.startswith(mark) else x for x in awaits))


@dataclass(frozen=True, slots=True)
class Wait:
    """What one step waits with."""

    #: The record while nothing has come.
    record: Record
    #: When it ends at the latest, in epoch seconds.
    due: float | None = None
    #: What the record says once something has come.
    status: RecordStatus = RecordStatus.OK
    #: Whether the record is yet to be written.
    opens: bool = False
    #: What is raised when the time is over.
    error: StepError | None = None
    #: Of the child whose end is waited for; None: a message of the run's own.
    queue: str | None = None


async def wait_signal(
    waits: Waits, step: Step, record: Record | None, name: str, timeout_s: float | None
) -> Any:
    """Return the payload of the oldest signal of a name. Raises `SignalTimeout`."""
    error = SignalTimeout(
        f"no signal {name!r} came within {timeout_s or 0:g} s", cause="SignalTimeout"
    )
    if record is None:
        await waits.recorder.ready()
        began = waits.recorder.wall()
        due = None if timeout_s is None else began + timeout_s
        record = waits.recorder.record(step, RecordStatus.WAITING, due, began=began)
        wait = Wait(record, due, opens=True, error=error)
    else:
        wait = Wait(record, record.value, error=error)
    if record.status is RecordStatus.WAITING:
        record = await receive(waits, step, MessageKind.SIGNAL.of(name), wait)
    return replayed(step, record, Any)


async def receive(waits: Waits, step: Step, name: str, wait: Wait) -> Record:
    """Return the record of the message, or that of the error when the time is over."""
    mailbox, recorder = waits.mailbox, waits.recorder
    waiter = mailbox.join(name)
    closed: Record | None = None
    try:
        # The first look is for what came before; it writes the record that has none yet.
        look = wait.opens or await mailbox.stands(name)
        opens = wait.opens
        while closed is None:
            late = wait.error is not None and wait.due is not None and wait.due <= recorder.wall()
            if look or late:
                waiter.rest()
                closed = await _look(waits, step, name, wait, late=late, opens=opens)
                opens = False
            if closed is None:
                with waits.parking.waiting(wait.due, name):
                    if not waiter.called:
                        left = None if wait.due is None else wait.due - recorder.wall()
                        await waiter.wait(left)
                await mailbox.refresh()
                look = waiter.called
    finally:
        mailbox.leave(waiter, answered=closed is not None)
    recorder.tell(step, closed)
    return closed


async def _look(
    waits: Waits, step: Step, name: str, wait: Wait, *, late: bool, opens: bool
) -> Record | None:
    """Look for a message once; return the record when that closed the wait."""
    recorder = waits.recorder
    otherwise = wait.record if opens else None
    if late and wait.error is not None:
        otherwise = recorder.failure(step, wait.error, 1, wait.record.began)
    if await recorder.look(step, name, wait.record, wait.status, otherwise, wait.queue):
        try:
            return await waits.mailbox.reader.taken(step.key)
        except SealKeyMissing as error:
            recorder.leave_unread(error)
    return otherwise if late else None
