"""What the exit code of a command tells the script that called it: one table, for code and help.

Promise: an error of the library has one code, found by its class, and `describe` prints every
code there is. It does not know how the error is told to people.
"""

from __future__ import annotations

from enum import IntEnum

from millstream.errors import (
    BrokenTrail,
    IdConflict,
    LeaseLost,
    MillstreamError,
    QueueFull,
    ResultTimeout,
    RunError,
    ScalingError,
    ScheduleConflict,
    SealingError,
    StaleReading,
    StepError,
    StoreError,
    StoreInUse,
    TrialConflict,
    Unaudited,
    UnfitStore,
    UnknownRun,
    UnknownSchedule,
    UnknownStep,
    UnknownTrial,
    UsageError,
)


class Exit(IntEnum):
    """How a command ended. Scripts depend on the numbers; never change one."""

    OK = 0
    RUN_ENDED_BADLY = 1
    USAGE = 2
    REDIS = 3
    NOT_FOUND = 4
    TIMEOUT = 5
    CONFLICT = 6
    TRAIL = 7
    FULL = 8
    SEALED = 9
    BUG = 70
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.RUN_ENDED_BADLY: "the run failed or was cancelled",
    Exit.USAGE: "wrong usage, settings or arguments, or a part that is not installed",
    Exit.REDIS: "Redis does not answer, or is not fit for use",
    Exit.NOT_FOUND: "there is no such run, step, schedule or trial",
    Exit.TIMEOUT: "the run did not end in time; it goes on",
    Exit.CONFLICT: "an id or a name belongs to something else, or the store is not empty",
    Exit.TRAIL: "the audit trail was changed or has a gap",
    Exit.FULL: "the queue holds as many waiting runs as it may",
    Exit.SEALED: "something is sealed under a key that is not here, or was changed",
    Exit.BUG: "an error in millstream itself",
    Exit.INTERRUPTED: "interrupted",
}

#: The first class that fits decides, so a special error stands above its parent.
_CODES: tuple[tuple[type[MillstreamError], Exit], ...] = (
    (IdConflict, Exit.CONFLICT),
    (ScheduleConflict, Exit.CONFLICT),
    (TrialConflict, Exit.CONFLICT),
    (StoreInUse, Exit.CONFLICT),
    (UnknownRun, Exit.NOT_FOUND),
    (UnknownSchedule, Exit.NOT_FOUND),
    (UnknownStep, Exit.NOT_FOUND),
    (UnknownTrial, Exit.NOT_FOUND),
    (UnfitStore, Exit.REDIS),
    (SealingError, Exit.SEALED),
    (UsageError, Exit.USAGE),
    (QueueFull, Exit.FULL),
    (StoreError, Exit.REDIS),
    (ResultTimeout, Exit.TIMEOUT),
    (RunError, Exit.RUN_ENDED_BADLY),
    (StepError, Exit.RUN_ENDED_BADLY),
    (LeaseLost, Exit.CONFLICT),
    (Unaudited, Exit.REDIS),
    (BrokenTrail, Exit.TRAIL),
    # Answers of the metrics API, which no command meets.
    (StaleReading, Exit.REDIS),
    (ScalingError, Exit.USAGE),
)


def code_of(error: MillstreamError) -> Exit:
    """Return the code that an error ends a command with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.BUG)


def describe() -> str:
    """Return the table as lines of text."""
    return "\n".join(f"  {code:>3}  {MEANINGS[code]}" for code in Exit)
