"""What is wrong with a schedule: raised before anything is written."""

from __future__ import annotations

from millstream.errors.root import UsageError


class InvalidSchedule(UsageError):
    """A schedule that could never do what it says."""

    def __init__(self, name: str, reason: str, *, field: str | None = None) -> None:
        super().__init__(f"schedule {name!r} cannot be: {reason}")
        self.name = name
        self.reason = reason
        #: Which of its fields is wrong, where it is one.
        self.field = field


class UnknownSchedule(UsageError):
    """No schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no schedule {name!r}; `millstream schedules list` shows all")
        self.name = name


class ScheduleConflict(UsageError):
    """The name belongs to another schedule, or to one that is being changed by others."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"schedule {name!r} {reason}")
        self.name = name
        self.reason = reason
