"""What happens inside a process, as values. Logs and metrics are two subscribers to them.

Logic calls ``emit(RunSettled(...))`` and nothing else. An emitter is cheap, never raises and
never blocks; in tests it is ``list.append``.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.events.inference import (
    BatchRan,
    DeviceFailed,
    DeviceRanOut,
    DeviceSampled,
    InferenceEnded,
    InferenceSampled,
    ModelEvicted,
    ModelLoaded,
    SlotsAdvanced,
)
from millstream.events.requests import (
    GatewayDraining,
    GatewayStarted,
    OperatorActed,
    RequestServed,
)
from millstream.events.root import Happening as _Event
from millstream.events.scheduling import (
    CertificateRead,
    MetricAsked,
    QueueSampled,
    ScheduleFailed,
    TickFired,
    TicksSkipped,
    TrialRolledBack,
    TrialSampled,
)
from millstream.events.surroundings import (
    AgentDiscovered,
    MessageReceived,
    MessageSent,
    RoomAwaited,
    Scored,
    SpansLeft,
    TaskLeft,
)

__all__ = [
    "AgentDiscovered",
    "BatchRan",
    "CertificateRead",
    "CircuitMoved",
    "DeviceFailed",
    "DeviceRanOut",
    "DeviceSampled",
    "Emit",
    "Event",
    "GatewayDraining",
    "GatewayStarted",
    "InferenceEnded",
    "InferenceSampled",
    "LaneCleaned",
    "LaneSwept",
    "LeaderChanged",
    "LeaseRenewed",
    "MessageReceived",
    "MessageSent",
    "MetricAsked",
    "ModelEvicted",
    "ModelLoaded",
    "OperatorActed",
    "QueueSampled",
    "RequestServed",
    "RoomAwaited",
    "RunLost",
    "RunSettled",
    "RunTaken",
    "ScheduleFailed",
    "Scored",
    "SlotsAdvanced",
    "SpansLeft",
    "StepEnded",
    "StepRetried",
    "StoreFailed",
    "StoreRecovered",
    "TaskLeft",
    "TickFired",
    "TicksSkipped",
    "ToolCalled",
    "ToolCatalogueChanged",
    "TrialRolledBack",
    "TrialSampled",
    "WorkerDraining",
    "WorkerStarted",
    "WorkerStopped",
]


class WorkerStarted(_Event, frozen=True, kw_only=True):
    """The process serves its queues. ``pid`` is for whoever looks for it on its machine."""

    token: str
    pid: int
    queues: tuple[str, ...]
    workflows: tuple[str, ...]
    concurrency: int


class WorkerDraining(_Event, frozen=True, kw_only=True):
    """The process takes nothing new and finishes what it holds."""

    holding: int
    grace_s: float


class WorkerStopped(_Event, frozen=True, kw_only=True):
    """The process has given back what it could not finish."""

    released: int


class RunTaken(_Event, frozen=True, kw_only=True):
    """A run was taken under a new fence."""

    run_id: str
    workflow: str
    queue: str
    attempt: int
    fence: int
    #: Records found in the journal; above 0 the run resumes.
    records: int
    waited_s: float
    tenant: str | None = None
    #: Where it stands in a trace, as a ``traceparent``; and under what.
    trace: str | None = None
    parent: str | None = None


class RunSettled(_Event, frozen=True, kw_only=True):
    """An attempt ended: ``state`` is final, or scheduled (retry), parked, queued (released)."""

    run_id: str
    workflow: str
    queue: str
    state: str
    attempt: int
    took_s: float
    #: ``Cause: message`` where it failed, and where that came from.
    error: str | None = None
    traceback: str | None = None
    #: Why this worker cannot run it, where it is left to others. That is no error of the run.
    refused: str | None = None
    tenant: str | None = None
    #: Of the take that this attempt was, as in `RunTaken`.
    trace: str | None = None


class RunLost(_Event, frozen=True, kw_only=True):
    """The fence moved on while this worker ran the run; nothing more is written."""

    run_id: str
    workflow: str
    queue: str
    fence: int
    trace: str | None = None


class StepEnded(_Event, frozen=True, kw_only=True):
    """A step ran (it was not replayed) and was journaled."""

    run_id: str
    workflow: str
    key: str
    kind: str
    target: str
    status: str
    attempts: int
    took_s: float
    queue: str | None = None
    #: Of the run, while the step ran.
    attempt: int | None = None
    tenant: str | None = None
    #: Of the take, as in `RunTaken`.
    trace: str | None = None


class StepRetried(_Event, frozen=True, kw_only=True):
    """A step failed and is tried again after a pause."""

    run_id: str
    key: str
    attempt: int
    pause_s: float
    error: str
    workflow: str | None = None
    queue: str | None = None
    tenant: str | None = None
    #: Of the take, as in `RunTaken`.
    trace: str | None = None


class ToolCalled(_Event, frozen=True, kw_only=True):
    """An MCP call ended. ``status`` is one of the closed set of the metric."""

    server: str
    tool: str
    status: str
    took_s: float
    #: Of the call itself, which is what the server was told; and of its step.
    trace: str | None = None
    parent: str | None = None


class ToolCatalogueChanged(_Event, frozen=True, kw_only=True):
    """A server describes its tools differently than it did."""

    server: str
    before: str
    after: str


class CircuitMoved(_Event, frozen=True, kw_only=True):
    """The breaker of a server changed its state: closed, open or half-open."""

    server: str
    state: str


class LeaseRenewed(_Event, frozen=True, kw_only=True):
    """The worker's claim to be alive was extended. ``lapsed``: it had run out before."""

    lapsed: bool
    took_s: float


class LaneSwept(_Event, frozen=True, kw_only=True):
    """A lane was looked after: due runs promoted, runs of lost workers queued again."""

    lane: str
    promoted: int
    reclaimed: int
    poisoned: int


class LaneCleaned(_Event, frozen=True, kw_only=True):
    """Losses were mended: entries without a run were dropped, runs without an entry put back."""

    lane: str
    dropped: int
    restored: int


class StoreFailed(_Event, frozen=True, kw_only=True):
    """Redis did not answer, or answered no. The loop that called tries again."""

    during: str
    error: str


class StoreRecovered(_Event, frozen=True, kw_only=True):
    """Redis answers again."""

    during: str
    away_s: float


class LeaderChanged(_Event, frozen=True, kw_only=True):
    """A scheduler began or ceased to lead."""

    token: str
    leading: bool


Event = (
    WorkerStarted
    | WorkerDraining
    | WorkerStopped
    | RunTaken
    | RunSettled
    | RunLost
    | StepEnded
    | StepRetried
    | ToolCalled
    | ToolCatalogueChanged
    | CircuitMoved
    | InferenceEnded
    | BatchRan
    | SlotsAdvanced
    | InferenceSampled
    | DeviceSampled
    | DeviceRanOut
    | DeviceFailed
    | ModelLoaded
    | ModelEvicted
    | LeaseRenewed
    | LaneSwept
    | LaneCleaned
    | StoreFailed
    | StoreRecovered
    | MessageSent
    | MessageReceived
    | AgentDiscovered
    | Scored
    | SpansLeft
    | TaskLeft
    | LeaderChanged
    | TickFired
    | TicksSkipped
    | ScheduleFailed
    | QueueSampled
    | TrialSampled
    | TrialRolledBack
    | MetricAsked
    | CertificateRead
    | GatewayStarted
    | GatewayDraining
    | RequestServed
    | RoomAwaited
    | OperatorActed
)

Emit = Callable[[Event], None]
