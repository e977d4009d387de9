"""What happens inside a process, as values. Logs and metrics are two subscribers to them.

Logic calls ``emit(RunSettled(...))`` and nothing else. An emitter is cheap, never raises and
never blocks; in tests it is ``list.append``.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class _Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value that is cheap to make: a busy worker makes a hundred thousand a second."""


class WorkerStarted(_Event, frozen=True, kw_only=True):
    """The process serves its queues."""

    token: str
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
    trace: str | None = None


class RunLost(_Event, frozen=True, kw_only=True):
    """The fence moved on while this worker ran the run; nothing more is written."""

    run_id: str
    workflow: str
    queue: str
    fence: int


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


class StepRetried(_Event, frozen=True, kw_only=True):
    """A step failed and is tried again after a pause."""

    run_id: str
    key: str
    attempt: int
    pause_s: float
    error: str


class ToolCalled(_Event, frozen=True, kw_only=True):
    """An MCP call ended. ``status`` is one of the closed set of the metric."""

    server: str
    tool: str
    status: str
    took_s: float


class ToolCatalogueChanged(_Event, frozen=True, kw_only=True):
    """A server describes its tools differently than it did."""

    server: str
    before: str
    after: str


class CircuitMoved(_Event, frozen=True, kw_only=True):
    """The breaker of a server changed its state: closed, open or half-open."""

    server: str
    state: str


class InferenceEnded(_Event, frozen=True, kw_only=True):
    """A call of a model ended. ``outcome`` is one of the closed set of the metric."""

    model: str
    outcome: str
    items: int
    #: How long the item that waited longest stood in the queue.
    waited_s: float
    took_s: float


class BatchRan(_Event, frozen=True, kw_only=True):
    """A device computed a batch, or failed to."""

    model: str
    device: str
    #: Why it left: full, bytes, ahead, quiescent, timer or deadline.
    reason: str
    items: int
    tokens: int
    #: Tokens with the padding, which is computed too.
    computed: int
    took_s: float
    #: How long the oldest item had waited.
    waited_s: float
    #: Peak bytes as predicted, and as observed where somebody measures them.
    predicted: int
    observed: int | None = None
    #: What kind of failure it was: memory, device or input.
    fault: str | None = None


class InferenceSampled(_Event, frozen=True, kw_only=True):
    """How much waits for a model."""

    model: str
    waiting: int
    oldest_s: float


class DeviceSampled(_Event, frozen=True, kw_only=True):
    """One reading of a device's memory, in bytes."""

    device: str
    usable: int
    others: int
    held: int
    headroom: int


class DeviceRanOut(_Event, frozen=True, kw_only=True):
    """A batch found no memory. ``split``: it goes on in parts."""

    model: str
    device: str
    items: int
    split: bool


class DeviceFailed(_Event, frozen=True, kw_only=True):
    """The context of a device died; it is started anew."""

    device: str
    error: str


class ModelLoaded(_Event, frozen=True, kw_only=True):
    """A model was brought to a device."""

    model: str
    device: str
    took_s: float
    bytes: int


class ModelEvicted(_Event, frozen=True, kw_only=True):
    """A model left a device, so that another has room."""

    model: str
    device: str
    bytes: int


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


class QueueSampled(_Event, frozen=True, kw_only=True):
    """One reading of a queue's gauges."""

    queue: str
    waiting: int
    running: int
    scheduled: int
    parked: int
    dead: int
    oldest_s: float
    workers: int


class GatewayStarted(_Event, frozen=True, kw_only=True):
    """The process answers HTTP."""

    port: int
    queues: tuple[str, ...]


class GatewayDraining(_Event, frozen=True, kw_only=True):
    """The process accepts nothing new, ends its streams and finishes what is under way."""

    requests: int
    grace_s: float


class RequestServed(_Event, frozen=True, kw_only=True):
    """A request was answered, or its stream has ended."""

    method: str
    #: The template of its route: never the path that was asked for.
    endpoint: str
    status: int
    took_s: float
    #: It was a stream: how long it took says how long somebody listened.
    streamed: bool
    actor: str
    #: What nobody foresaw, where that is why it failed.
    error: str | None = None


class OperatorActed(_Event, frozen=True, kw_only=True):
    """Somebody changed a run, or tried to. ``outcome`` is ``done``, or what kept it from that."""

    actor: str
    action: str
    queue: str
    run_id: str
    origin: str
    outcome: str


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
    | LeaderChanged
    | QueueSampled
    | GatewayStarted
    | GatewayDraining
    | RequestServed
    | OperatorActed
)

Emit = Callable[[Event], None]
