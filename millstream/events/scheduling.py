"""What a scheduler does and reads: ticks, the gauges of queues, questions of an autoscaler."""

from __future__ import annotations

from millstream.events.root import Happening as _Event
from millstream.model.demand import demand


class TickFired(_Event, frozen=True, kw_only=True):
    """A tick of a schedule has got its run."""

    schedule: str
    run_id: str
    workflow: str
    queue: str
    #: How long after its time, a jitter included.
    late_s: float


class TicksSkipped(_Event, frozen=True, kw_only=True):
    """Ticks of a schedule were passed over: ``late``, ``overlap`` or ``full`` (too many wait)."""

    schedule: str
    reason: str
    count: int


class ScheduleFailed(_Event, frozen=True, kw_only=True):
    """A schedule cannot fire as it stands; it is tried again later."""

    schedule: str
    error: str


class QueueSampled(_Event, frozen=True, kw_only=True):
    """One reading of a queue's gauges. All of them are of the same moment."""

    queue: str
    waiting: int
    running: int
    scheduled: int
    parked: int
    dead: int
    oldest_s: float
    workers: int
    #: 1 while workers take nothing new from it.
    paused: int = 0
    #: Scheduled or parked runs whose time has come.
    due: int = 0
    #: Queued runs that wait for a permit of a limit; they are not among those waiting.
    limited: int = 0
    #: Runs that the living workers may hold at once.
    slots: int = 0
    #: Deliveries that came in a second, and how long one held its slot; None: not known yet.
    arrival_rate: float | None = None
    service_s: float | None = None
    #: How long Redis took to answer: the reading may have been so old when it came.
    took_s: float = 0.0

    @property
    def slots_used(self) -> int:
        """Slots that hold a run of this queue."""
        return self.running

    @property
    def slots_free(self) -> int:
        """Slots that are left, as far as runs of other queues do not take them."""
        return max(0, self.slots - self.running)

    @property
    def demand(self) -> float:
        """What a fleet is scaled by."""
        return demand(
            waiting=self.waiting,
            running=self.running,
            due=self.due,
            arrival_rate=self.arrival_rate,
            service_s=self.service_s,
        )


class TrialSampled(_Event, frozen=True, kw_only=True):
    """Runs of one version of a trial have ended in a state since the last look."""

    queue: str
    workflow: str
    version: str
    #: ``canary``, the version that is tried, or ``stable``.
    arm: str
    state: str
    ended: int


class TrialRolledBack(_Event, frozen=True, kw_only=True):
    """A version on trial did worse than the kept one, and gets no new runs any more."""

    queue: str
    workflow: str
    version: str
    kept: str
    reason: str


class MetricAsked(_Event, frozen=True, kw_only=True):
    """An autoscaler, or a person, asked the Kubernetes metrics API for a metric."""

    group: str
    metric: str
    #: The status code of HTTP.
    status: int


class CertificateRead(_Event, frozen=True, kw_only=True):
    """The certificates that a port is served with changed. ``error``: the new ones are no use."""

    error: str | None = None
