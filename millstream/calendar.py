"""The schedules that an application brings along: written in its code, applied by its workers.

Says what is wanted, and has nothing to do with Redis. What a cron line means is looked at where
the application is loaded, since a program that only enqueues needs nothing that reads one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import InvalidSchedule
from millstream.model.schedule import Schedule


@dataclass(slots=True)
class Calendar:
    """The schedules of one application, by name."""

    _schedules: dict[str, Schedule] = field(default_factory=dict)

    @property
    def schedules(self) -> Iterator[Schedule]:
        """Iterate over the schedules."""
        return iter(tuple(self._schedules.values()))

    def schedule(self, name: str, workflow: str, arguments: Any = None, **options: Any) -> Schedule:
        """Have a workflow run again and again. ``options`` are the fields of `Schedule`.

        A worker that serves the application makes the schedule when it starts, and changes the one
        that is there when it says something else; it takes none away.
        """
        wanted = Schedule(name, workflow, arguments, **options).checked()
        self.add_schedule(wanted)
        return wanted

    def add_schedule(self, schedule: Schedule) -> None:
        """Add a schedule. Raises `InvalidSchedule` when there is one of its name."""
        if schedule.name in self._schedules:
            raise InvalidSchedule(schedule.name, "it is given twice; choose another name")
        self._schedules[schedule.name] = schedule
