"""A run: one execution of one workflow, from enqueue to its last state.

Values here are frozen and know nothing of Redis, of time, or of where they are kept. The state
machine stands twice, here and in the scripts; a property test keeps the two the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from millstream.model.attributes import Attributes
from millstream.model.message import described


class RunState(StrEnum):
    """Where a run is. The words are also what Redis stores; never rename one."""

    SCHEDULED = "scheduled"  # waits for its time: a delay, or the pause before a retry
    QUEUED = "queued"  # in a stream, nobody holds it
    RUNNING = "running"  # one worker holds it under a fence
    PARKED = "parked"  # waits for a time or a message; holds no worker slot and no worker memory
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run has ended. An operator may still start it again."""
        return self in FINAL


FINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})

#: Every move a run can make. The scripts make them; tests hold the scripts to this table.
MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.SCHEDULED: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {
            RunState.QUEUED,  # released by a drain, reclaimed from a lost worker, or begun anew
            RunState.SCHEDULED,  # retried later
            RunState.PARKED,
            RunState.COMPLETED,
            RunState.FAILED,  # out of attempts, or its workers died once too often
            RunState.CANCELLED,
        }
    ),
    RunState.PARKED: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset({RunState.QUEUED}),  # an operator's retry
    RunState.CANCELLED: frozenset({RunState.QUEUED}),  # an operator's retry
}


class Priority(StrEnum):
    """How soon a new run is started, compared with others of its queue."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When things happened to a run, in seconds of the Unix epoch by the clock of Redis."""

    enqueued: float
    started: float | None = None
    ended: float | None = None
    #: When a scheduled or parked run goes on.
    due: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What is known of a run, as an operator sees it."""

    id: str
    state: RunState
    attempt: int
    workflow: str
    #: The version it started on; None until a worker has started it.
    version: str | None
    #: ``"Cause: message"`` of the last failure, kept while a retry is pending.
    error: str | None
    times: Times
    queue: str = "default"
    #: How many workers in a row died while they held it, with nothing recorded in between.
    crashes: int = 0
    tenant: str | None = None
    #: How many workers in a row have handed it back: they do not know its workflow, or its
    #: journal is of a newer release.
    refusals: int = 0
    #: The messages that a parked run waits for, see `millstream.model.message`.
    awaits: tuple[str, ...] = ()
    #: The limit that a queued run waits for a permit of.
    limited_by: str | None = None
    #: ``"ID at STEP"``: the run with whose records it began, and where it went its own way.
    forked_from: str | None = None
    #: What its caller wrote on it, to find it by.
    attributes: Attributes = field(default_factory=dict)
    #: ``"QUEUE/ID"`` of the run that started it as a child.
    parent: str | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it waits for a permit of a limit."""
        return self.limited_by is not None and self.state is RunState.QUEUED

    @property
    def waits_for(self) -> str | None:
        """Why it does not run: for want of a message, of a permit, or of a worker that can."""
        if self.awaits and self.state is RunState.PARKED:
            more = f" and {len(self.awaits) - 3} more" if len(self.awaits) > 3 else ""
            return ", ".join(map(described, self.awaits[:3])) + more
        if self.is_limited:
            return f"a permit of limit {self.limited_by}"
        if not self.refusals or self.state not in {RunState.SCHEDULED, RunState.QUEUED}:
            return None

        version = f" version {self.version}" if self.version else ""
        times = "once" if self.refusals == 1 else f"{self.refusals} times"
        return f"no worker that took it can run workflow {self.workflow}{version}; refused {times}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How many runs of a queue are in which state."""

    waiting: int = 0
    running: int = 0
    scheduled: int = 0
    parked: int = 0
    dead: int = 0
    #: Queued runs that wait for a permit of their limits; they are not among those waiting.
    limited: int = 0
    #: Age of the oldest run that nobody holds, in seconds.
    oldest_s: float = field(default=0.0, compare=False)
    #: Whether workers take nothing new from it.
    paused: bool = False
    #: Deliveries that it has had, and those that are over. They grow, unless Redis forgets.
    added: int = field(default=0, compare=False)
    gone: int = field(default=0, compare=False)


class Delivery(NamedTuple):
    """One stream entry held by one worker: the right to run a run, until the fence moves on.

    A tuple, since a busy worker makes tens of thousands a second.
    """

    run_id: str
    fence: int
    #: Stream level and entry id, the address under which the delivery is acknowledged.
    level: str
    entry: str
    workflow: str
    version: str | None
    arguments: bytes
    attempt: int
    #: Attempts made before an operator's retry; they do not count against the policy.
    base: int
    crashes: int
    #: Running time of this attempt before it was parked, in seconds.
    ran_s: float
    #: Overrides the workflow's timeout, in seconds.
    timeout_s: float | None
    tenant: str | None
    enqueued: float
    #: How many records the journal holds; 0 means there is nothing to load.
    records: int
    #: How often workers that do not know the workflow have handed it back.
    refusals: int = 0
    #: Whether it has ever received a message.
    received: bool = False
    #: How often it has begun anew with other arguments.
    generation: int = 0
    #: Where its caller stands in a trace, as a ``traceparent``; in a worker that traces, where
    #: this very delivery does.
    trace: str | None = None
