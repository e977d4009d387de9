"""The verdict of one attempt. One function computes it, another writes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """The workflow returned; ``result`` is its encoded value."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The workflow raised, and is not tried again."""

    cause: str
    message: str
    #: Where it came from, for the log.
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The workflow raised, and is tried again after ``pause_s`` seconds."""

    pause_s: float
    cause: str
    message: str
    #: Step keys whose records are dropped: the failure that escaped the workflow.
    drop: tuple[str, ...] = ()
    #: Where it came from, for the log.
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """Every branch of the workflow waits; it goes on at ``due`` (epoch seconds, None: never).

    Or when one of the messages comes that it ``awaits``. Of those up to number ``heard`` it knows.
    """

    due: float | None
    #: Running time of this attempt so far, in seconds.
    ran_s: float
    heard: int = 0
    awaits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Continued:
    """The run begins anew, with an empty journal and these encoded arguments."""

    arguments: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run was asked to stop, and has stopped."""


@dataclass(frozen=True, slots=True)
class Released:
    """The run goes back untouched: the worker drains. The attempt does not count."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The worker cannot run it, for ``reason``; another may, after ``pause_s``."""

    pause_s: float
    reason: str = ""


Outcome = Completed | Failed | Retry | Parked | Continued | Cancelled | Released | Refused
