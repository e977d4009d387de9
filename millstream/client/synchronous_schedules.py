"""Schedules for programs without an event loop: the same verbs, blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from anyio.from_thread import BlockingPortal

from millstream.client.handles import Run
from millstream.client.schedules import Applied, Schedules
from millstream.model.schedule import Schedule, ScheduleStatus

Handle = TypeVar("Handle")


@dataclass(frozen=True, slots=True)
class SyncSchedules(Generic[Handle]):
    """The schedules of one Redis. See `Schedules`."""

    portal: BlockingPortal
    schedules: Schedules
    #: What a run is handed out as.
    wrap: Callable[[Run], Handle]

    def create(self, schedule: Schedule, *, paused: bool = False) -> ScheduleStatus:
        """Make a schedule. See `Schedules.create`."""
        return self.portal.call(partial(self.schedules.create, schedule, paused=paused))

    def change(self, before: Schedule, wanted: Schedule) -> ScheduleStatus:
        """Have a schedule say something else. See `Schedules.change`."""
        return self.portal.call(self.schedules.change, before, wanted)

    def apply(self, wanted: Iterable[Schedule]) -> Sequence[Applied]:
        """Make schedules, or change those that differ. See `Schedules.apply`."""
        return self.portal.call(self.schedules.apply, wanted)

    def list(self, *, after: str = "", limit: int = 100) -> Sequence[ScheduleStatus]:
        """Return schedules by name. See `Schedules.list`."""
        return self.portal.call(partial(self.schedules.list, after=after, limit=limit))

    def get(self, name: str) -> ScheduleStatus:
        """Return a schedule with its next times."""
        return self.portal.call(self.schedules.get, name)

    def pause(self, name: str) -> ScheduleStatus:
        """Let a schedule fire no more until it is resumed."""
        return self.portal.call(self.schedules.pause, name)

    def resume(self, name: str) -> ScheduleStatus:
        """Let a paused schedule fire again, from its next time on."""
        return self.portal.call(self.schedules.resume, name)

    def trigger(self, name: str, *, id: str | None = None) -> Handle:
        """Start a run of a schedule now. See `Schedules.trigger`."""
        return self.wrap(self.portal.call(partial(self.schedules.trigger, name, id=id)))

    def delete(self, name: str) -> None:
        """Delete a schedule; its runs go on."""
        self.portal.call(self.schedules.delete, name)
