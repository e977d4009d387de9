"""The loop of a HorizontalPodAutoscaler: look every fifteen seconds, follow the largest proposal.

A metric that is missing proposes nothing. While one is missing nothing is scaled in, since it might
have asked for what is there; when all are missing nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.autoscaling.arithmetic import NoMetric
from benchmarks.autoscaling.behavior import Behavior, History, normalized

SYNC_S = 15.0
#: The longest window or period that Kubernetes allows.
_REMEMBERED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How few and how many replicas there may be."""

    lowest: int
    highest: int


#: From the replicas that are wanted now to those that a metric asks for. Raises `NoMetric`.
Proposes = Callable[[int], int]


@dataclass(slots=True)
class Autoscaler:
    """One autoscaler of one fleet."""

    bounds: Bounds
    behavior: Behavior
    past: History = field(default_factory=History)

    def sync(self, now: float, current: int, metrics: Sequence[Proposes]) -> int:
        """Return how many replicas are wanted from now on."""
        desired = self._desired(current, metrics)
        if desired is None:
            return current

        self.past.forget(now - _REMEMBERED_S)
        bounds = (self.bounds.lowest, self.bounds.highest)
        wanted = normalized(now, current, desired, bounds, self.behavior, self.past)
        if wanted > current:
            self.past.added.append((now, wanted - current))
        if wanted < current:
            self.past.removed.append((now, current - wanted))
        return wanted

    def _desired(self, current: int, metrics: Sequence[Proposes]) -> int | None:
        proposals, missing = [], 0
        for propose in metrics:
            try:
                proposals.append(propose(current))
            except NoMetric:
                missing += 1
        if not proposals or (missing and max(proposals) < current):
            return None

        return max(proposals)
