"""A schedule as it is shown: as a row, as facts, as a document. Only values; nothing is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from millstream.cli.access import span
from millstream.cli.output import Listing, Row, clean
from millstream.model.schedule import ScheduleStatus

_COLUMNS = ("NAME", "WORKFLOW", "WHEN", "ZONE", "STATE", "NEXT", "IN", "LAST RUN", "FIRED")


def listing(found: Sequence[ScheduleStatus], now: float) -> Listing:
    """Return schedules as a listing."""
    return Listing("schedules", _COLUMNS, [_row(status, now) for status in found])


def document(status: ScheduleStatus) -> dict[str, Any]:
    """Return what is known of a schedule for programs."""
    found: dict[str, Any] = msgspec.to_builtins(status.schedule)
    return {
        **found,
        **asdict(status.progress),
        "state": state(status),
        "revision": status.revision,
        "upcoming": status.upcoming,
    }


def state(status: ScheduleStatus) -> str:
    """Return in one word how a schedule is."""
    if status.paused:
        return "paused"
    if status.progress.error:
        return "failing"
    return "over" if status.progress.next is None else "active"


def outlook(status: ScheduleStatus, now: float) -> str:
    """Return what comes next, as the end of a sentence."""
    if not status.upcoming:
        return f"is {state(status)}"
    return f"fires next at {_local(status, status.upcoming[0])}, in {_until(status, now)}"


def facts(status: ScheduleStatus) -> Iterator[tuple[str, str]]:
    """Yield everything about a schedule, a line each."""
    schedule, progress = status.schedule, status.progress
    version = f"@{schedule.version}" if schedule.version else ""
    yield "schedule", status.name
    yield "workflow", clean(f"{schedule.workflow}{version}")
    yield "queue", schedule.queue
    yield "arguments", clean(json.dumps(schedule.arguments))
    yield "when", _when(status)
    yield "zone", schedule.timezone
    for label, bound in (("from", schedule.start), ("until", schedule.end)):
        if bound is not None:
            yield label, bound.isoformat()
    if schedule.jitter:
        yield "jitter", span(schedule.jitter)
    yield "overlap", str(schedule.overlap)
    yield "catch up", str(schedule.catch_up)
    yield "state", state(status)
    if progress.error:
        yield "error", clean(progress.error)
    yield "fired", f"{progress.fired}, passed over {progress.skipped}"
    if progress.waiting:
        yield "waiting", f"{len(progress.waiting)} for the end of the last run"
    if progress.last_run:
        yield "last run", progress.last_run
    for number, tick in enumerate(status.upcoming):
        yield "" if number else "next", _local(status, tick)


def _row(status: ScheduleStatus, now: float) -> Row:
    upcoming = status.upcoming
    cells = (
        status.name,
        status.schedule.workflow,
        _when(status),
        status.schedule.timezone,
        state(status),
        _local(status, upcoming[0]) if upcoming else "-",
        _until(status, now) if upcoming else "-",
        status.progress.last_run or "-",
        str(status.progress.fired),
    )
    return Row(status.name, cells, document(status))


def _when(status: ScheduleStatus) -> str:
    schedule = status.schedule
    return schedule.cron if schedule.cron is not None else f"every {span(schedule.every or 0.0)}"


def _until(status: ScheduleStatus, now: float) -> str:
    return span(max(0.0, status.upcoming[0] - now))


def _local(status: ScheduleStatus, tick: float) -> str:
    zone = ZoneInfo(status.schedule.timezone)
    return datetime.fromtimestamp(tick, zone).isoformat(sep=" ", timespec="seconds")
