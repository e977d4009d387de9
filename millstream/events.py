"""What happens inside a process, as values. Logs and metrics are two subscribers to them.

Logic calls ``emit(RunSettled(...))`` and nothing else. An emitter is cheap, never raises and
never blocks; in tests it is ``list.append``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """The process serves its queues."""

    token: str
    queues: tuple[str, ...]
    workflows: tuple[str, ...]
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDraining:
    """The process takes nothing new and finishes what it holds."""

    holding: int
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped:
    """The process has given back what it could not finish."""

    released: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTaken:
    """A run was taken under a new fence."""

    run_id: str
    workflow: str
    queue: str
    attempt: int
    fence: int
    #: Records found in the journal; above 0 the run resumes.
    records: int
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettled:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLost:
    """The fence moved on while this worker ran the run; nothing more is written."""

    run_id: str
    workflow: str
    queue: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnded:
    """A step ran (it was not replayed) and was journaled."""

    run_id: str
    workflow: str
    key: str
    kind: str
    target: str
    status: str
    attempts: int
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetried:
    """A step failed and is tried again after a pause."""

    run_id: str
    key: str
    attempt: int
    pause_s: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled:
    """An MCP call ended. ``status`` is one of the closed set of the metric."""

    server: str
    tool: str
    status: str
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCatalogueChanged:
    """A server describes its tools differently than it did."""

    server: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitMoved:
    """The breaker of a server changed its state: closed, open or half-open."""

    server: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """The worker's claim to be alive was extended. ``lapsed``: it had run out before."""

    lapsed: bool
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSwept:
    """A lane was looked after: due runs promoted, runs of lost workers queued again."""

    lane: str
    promoted: int
    reclaimed: int
    poisoned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCleaned:
    """Losses were mended: entries without a run were dropped, runs without an entry put back."""

    lane: str
    dropped: int
    restored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """Redis did not answer, or answered no. The loop that called tries again."""

    during: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered:
    """Redis answers again."""

    during: str
    away_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderChanged:
    """A scheduler began or ceased to lead."""

    token: str
    leading: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSampled:
    """One reading of a queue's gauges."""

    queue: str
    waiting: int
    running: int
    scheduled: int
    parked: int
    dead: int
    oldest_s: float
    workers: int


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
    | LeaseRenewed
    | LaneSwept
    | LaneCleaned
    | StoreFailed
    | StoreRecovered
    | LeaderChanged
    | QueueSampled
)

Emit = Callable[[Event], None]
