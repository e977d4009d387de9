"""What goes in and out of the API, as values: decoded, checked and described from one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from millstream.model.limits import LIMITS
from millstream.model.run import RunState, RunStatus

#: Items of one bulk request.
MOST_AT_ONCE = 500

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", min_length=1, max_length=100)]
QueueName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        min_length=1,
        max_length=64,
        description="A queue that this gateway serves; by default its first one.",
    ),
]
RunId = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+=-]*$", min_length=1, max_length=200)
]
Cursor = Annotated[str, Meta(max_length=800, description="Where the last page ended: its `next`.")]
Limit = Annotated[int, Meta(ge=1, le=200, description="At most so many.")]
AttributeValue = Annotated[str, Meta(min_length=1, max_length=LIMITS.attribute)]
AttributePair = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*=",
        max_length=400,
        description="`NAME=VALUE`: only runs with this attribute; may be repeated.",
    ),
]
Seconds = Annotated[float, Meta(gt=0, le=315_360_000)]
Cause = Annotated[
    str,
    Meta(min_length=1, max_length=200, description="Of a failure: `ValueError`, `worker_lost`."),
]
Tenant = Annotated[str, Meta(min_length=1, max_length=200, description="For who sees several.")]
Moment = Annotated[
    float, Meta(ge=0, le=1e11, description="Of enqueueing, in epoch seconds: not before, before.")
]


# -- what is asked -----------------------------------------------------------------------------


class NewRun(Struct, kw_only=True, forbid_unknown_fields=True):
    """A run to enqueue. The same id, workflow and arguments again are the same run."""

    workflow: Name
    arguments: dict[str, Any] = {}
    id: RunId | None = None
    queue: QueueName | None = None
    priority: Literal["high", "normal", "low"] = "normal"
    #: Seconds before it may start.
    delay: Seconds | None = None
    #: Bounds the running time of one attempt, in seconds.
    timeout: Seconds | None = None
    version: Name | None = None
    #: A few words to find it by.
    attributes: Annotated[dict[Name, AttributeValue], Meta(max_length=LIMITS.attributes)] = {}


class NewRuns(Struct, kw_only=True, forbid_unknown_fields=True):
    """Runs to enqueue in one request."""

    runs: Annotated[list[NewRun], Meta(min_length=1, max_length=MOST_AT_ONCE)]


class NoQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Nothing can be asked for beside the path."""


class OfQueue(Struct, kw_only=True, forbid_unknown_fields=True):
    """In which queue to look."""

    queue: QueueName | None = None


class RunsQuery(OfQueue, kw_only=True, forbid_unknown_fields=True):
    """Which runs to list."""

    state: list[RunState] = []
    attribute: list[AttributePair] = []
    workflow: Name | None = None
    cause: Cause | None = None
    tenant: Tenant | None = None
    since: Moment | None = None
    until: Moment | None = None
    #: Only those that wait for a permit of a limit.
    limited: bool = False
    limit: Limit = 50
    cursor: Cursor | None = None


class DeadQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters to list."""

    workflow: Name | None = None
    cause: Cause | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class ResultQuery(OfQueue, kw_only=True, forbid_unknown_fields=True):
    """How long to wait for a result."""

    wait: Annotated[float, Meta(ge=0, le=60, description="Seconds to wait for the end.")] = 0.0


class EventsQuery(OfQueue, kw_only=True, forbid_unknown_fields=True):
    """From where on to tell."""

    after: (
        Annotated[
            str,
            Meta(
                max_length=50,
                description="Tell what was said after this event id; for clients"
                " that cannot send `Last-Event-ID`.",
            ),
        ]
        | None
    ) = None


# -- what is answered --------------------------------------------------------------------------


class Accepted(Struct, kw_only=True):
    """A run that was accepted, now or before."""

    id: str
    queue: str
    #: False when the same run was here already.
    created: bool


class AcceptedOrNot(Struct, kw_only=True):
    """One of many: accepted, or why not."""

    id: str
    queue: str
    created: bool = False
    error: str | None = None


class AcceptedMany(Struct, kw_only=True):
    """Each run of a bulk request, in order."""

    runs: list[AcceptedOrNot]


class RunTimes(Struct, kw_only=True):
    """Epoch seconds by the clock of Redis."""

    enqueued: float
    started: float | None = None
    ended: float | None = None
    due: float | None = None


class RunView(Struct, kw_only=True):
    """What is known of a run."""

    id: str
    queue: str
    state: RunState
    workflow: str
    version: str | None
    attempt: int
    error: str | None
    tenant: str | None
    crashes: int
    #: Why it does not start, when that is for want of a worker.
    waits_for: str | None
    #: `QUEUE/ID` of the run that started it as a child.
    parent: str | None
    #: `ID at STEP` of the run that it was forked from.
    forked_from: str | None
    times: RunTimes
    #: What its caller wrote on it, to find it by.
    attributes: dict[str, str] = {}


class RunList(Struct, kw_only=True):
    """A page of runs. It may be short and still not be the last."""

    runs: list[RunView]
    #: Give it as `cursor` to go on; null: that was all.
    next: str | None


class Failure(Struct, kw_only=True):
    """Why a run failed."""

    cause: str
    message: str


class RunEnd(Struct, kw_only=True):
    """How a run ended; while it goes on, `state` says where it is."""

    id: str
    queue: str
    state: RunState
    result: Any = None
    error: Failure | None = None
    #: What it waits for, if for anything: a message, a permit, or a worker that can run it.
    waits_for: str | None = None


class Moved(Struct, kw_only=True):
    """The state of a run after what was asked. A running one is told, and ends soon."""

    id: str
    queue: str
    state: RunState


class QueueView(Struct, kw_only=True):
    """What a queue holds, and who serves it."""

    queue: str
    waiting: int
    running: int
    scheduled: int
    parked: int
    dead: int
    #: Age of the run that has waited longest, in seconds.
    oldest_s: float
    workers: int
    slots: int
    #: Whether workers take nothing new from it.
    paused: bool


class QueueList(Struct, kw_only=True):
    """The queues of this gateway that the caller may see."""

    queues: list[QueueView]


class WorkflowView(Struct, kw_only=True):
    """A workflow that workers of a queue serve just now."""

    name: str
    version: str
    description: str
    #: JSON Schema of the arguments.
    arguments: dict[str, Any]


class WorkflowList(Struct, kw_only=True):
    """What can be run in a queue."""

    queue: str
    workflows: list[WorkflowView]


class HealthView(Struct, kw_only=True):
    """Whether the process is well, and why not."""

    status: str
    reason: str | None = None


def view(status: RunStatus) -> RunView:
    """Return a run's status as it is answered."""
    times = status.times
    return RunView(
        id=status.id,
        queue=status.queue,
        state=status.state,
        workflow=status.workflow,
        version=status.version,
        attempt=status.attempt,
        error=status.error,
        tenant=status.tenant,
        crashes=status.crashes,
        waits_for=status.waits_for,
        parent=status.parent,
        forked_from=status.forked_from,
        times=RunTimes(
            enqueued=times.enqueued, started=times.started, ended=times.ended, due=times.due
        ),
        attributes=dict(status.attributes),
    )


def encoded(value: Any) -> bytes:
    """Return an answer as JSON."""
    return msgspec.json.encode(value)
