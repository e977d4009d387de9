"""What a fleet shows, and how old it is when an autoscaler sees it.

The demand is computed by the scheduler's own code, from counters at the scheduler's own interval.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from benchmarks.autoscaling.arithmetic import NoMetric, Pod
from benchmarks.autoscaling.fleet import Fleet
from millstream.model.demand import demand
from millstream_scheduler.rates import Rates

#: Thousandths of a core: what a pod asks for, what it uses when idle, and what a run adds that
#: mostly waits for others, as agents do.
CPU_REQUEST = 250.0
_CPU_IDLE = 15.0
_CPU_RUN = 2.0

#: How often each is read at its source. What is of pods is averaged, scraped or listed on its way,
#: and comes this much later: https://kubernetes.io/docs has 15 s for either step.
SAMPLE_S = 5.0
_LATE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was to be seen at a moment."""

    at: float
    waiting: int
    running: int
    demand: float
    #: Runs that each ready pod held, by its number.
    held: dict[int, int]


@dataclass(slots=True)
class Signals:
    """Looks at a fleet, and remembers for those who are told late."""

    fleet: Fleet
    rates: Rates = field(default_factory=Rates)
    past: deque[Seen] = field(default_factory=deque)

    def look(self) -> None:
        """Take a reading."""
        fleet, counts = self.fleet, self.fleet.counts
        self.rates.look(fleet.now, added=counts.added, gone=counts.gone, running=fleet.running)
        there = {"waiting": len(fleet.waiting), "running": fleet.running}
        wanted = demand(
            **there,
            due=0,
            arrival_rate=self.rates.arrival_rate,
            service_s=self.rates.service_s,
        )
        held = {pod.number: len(pod.holds) for pod in fleet.replicas if pod.ready}
        self.past.append(Seen(at=fleet.now, demand=wanted, held=held, **there))
        while self.past[0].at < fleet.now - 2 * _LATE_S:
            self.past.popleft()

    @property
    def latest(self) -> Seen:
        """What the scheduler knows."""
        if not self.past:
            raise NoMetric
        return self.past[-1]

    @property
    def late(self) -> Seen:
        """What has come through the metrics of pods."""
        found = [seen for seen in self.past if seen.at <= self.fleet.now - _LATE_S]
        if not found:
            raise NoMetric
        return found[-1]

    def cpu(self) -> list[Pod]:
        """Return what the pods used of a core."""
        held = self.late.held
        return [
            Pod(
                value=_CPU_IDLE + _CPU_RUN * held[pod.number] if pod.number in held else None,
                request=CPU_REQUEST,
                ignored=not pod.ready,
            )
            for pod in self.fleet.replicas
        ]

    def active(self) -> list[Pod]:
        """Return how many runs the pods held."""
        held = self.late.held
        return [
            Pod(value=held.get(pod.number), ignored=not pod.ready) for pod in self.fleet.replicas
        ]
