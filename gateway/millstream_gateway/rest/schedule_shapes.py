"""Schedules as they go in and out of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from millstream.model.run import Priority
from millstream.model.schedule import (
    MOST_CAUGHT_UP,
    SHORTEST_S,
    CatchUp,
    Overlap,
    Schedule,
    ScheduleStatus,
)
from millstream_gateway.rest.shapes import Limit, Name, QueueName, RunId, Seconds

Line = Annotated[str, Meta(min_length=1, max_length=200, description="A cron line, or `@daily`.")]
Zone = Annotated[str, Meta(min_length=1, max_length=100, description="An IANA name.")]


# -- what is asked -----------------------------------------------------------------------------


class ChangedSchedule(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a schedule says from now on: for what is left out, what a new one would say.

    Its queue, where none is named, stays the one it has.
    """

    workflow: Name
    arguments: dict[str, Any] = {}
    cron: Line | None = None
    #: Seconds between two times.
    every: Annotated[float, Meta(ge=SHORTEST_S, le=315_360_000)] | None = None
    timezone: Zone = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    jitter: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.LAST
    catch_up_limit: Annotated[int, Meta(ge=1, le=MOST_CAUGHT_UP)] = 100
    queue: QueueName | None = None
    priority: Literal["high", "normal", "low"] = "normal"
    timeout: Seconds | None = None
    version: Name | None = None

    def called(self, name: str, queue: str, tenant: str | None) -> Schedule:
        """Return the schedule that is asked for."""
        return Schedule(
            name,
            self.workflow,
            self.arguments,
            cron=self.cron,
            every=self.every,
            timezone=self.timezone,
            start=self.start,
            end=self.end,
            jitter=self.jitter,
            overlap=self.overlap,
            catch_up=self.catch_up,
            catch_up_limit=self.catch_up_limit,
            queue=queue,
            priority=Priority(self.priority),
            tenant=tenant,
            timeout=self.timeout,
            version=self.version,
        )


class NewSchedule(ChangedSchedule, kw_only=True, forbid_unknown_fields=True):
    """A workflow to run again and again: at the times of a cron line, or at an interval."""

    name: Name
    #: Whether it begins paused.
    paused: bool = False


class Trigger(Struct, kw_only=True, forbid_unknown_fields=True):
    """A run of a schedule to start now. The same id again is the same run."""

    id: RunId | None = None


class SchedulesQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which schedules to list: those behind a name."""

    limit: Limit = 50
    after: Name | None = None


# -- what is answered --------------------------------------------------------------------------


class ScheduleView(Struct, kw_only=True):
    """What is known of a schedule. Times are epoch seconds by the clock of Redis."""

    name: str
    workflow: str
    arguments: Any
    cron: str | None
    every: float | None
    timezone: str
    start: datetime | None
    end: datetime | None
    jitter: float
    overlap: Overlap
    catch_up: CatchUp
    catch_up_limit: int
    queue: str
    priority: str
    tenant: str | None
    timeout: float | None
    version: str | None
    paused: bool
    #: When it fires next; in a list only the first of these times.
    upcoming: list[float]
    waiting: int
    last: float | None
    last_run: str | None
    fired: int
    skipped: int
    #: Why it cannot fire, while it cannot.
    error: str | None


class ScheduleList(Struct, kw_only=True):
    """Schedules by name."""

    schedules: list[ScheduleView]
    #: Give it as `after` to go on; null: that was all.
    next: str | None


class Deleted(Struct, kw_only=True):
    """A schedule that is no more. Its runs go on."""

    name: str


def view(status: ScheduleStatus) -> ScheduleView:
    """Return a schedule's status as it is answered."""
    schedule, progress = status.schedule, status.progress
    return ScheduleView(
        name=schedule.name,
        workflow=schedule.workflow,
        arguments=schedule.arguments,
        cron=schedule.cron,
        every=schedule.every,
        timezone=schedule.timezone,
        start=schedule.start,
        end=schedule.end,
        jitter=schedule.jitter,
        overlap=schedule.overlap,
        catch_up=schedule.catch_up,
        catch_up_limit=schedule.catch_up_limit,
        queue=schedule.queue,
        priority=str(schedule.priority),
        tenant=schedule.tenant,
        timeout=schedule.timeout,
        version=schedule.version,
        paused=progress.paused,
        upcoming=list(status.upcoming),
        waiting=len(progress.waiting),
        last=progress.last,
        last_run=progress.last_run,
        fired=progress.fired,
        skipped=progress.skipped,
        error=progress.error,
    )
