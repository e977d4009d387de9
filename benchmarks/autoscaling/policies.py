"""The ways of scaling that are compared. All have the same bounds, and the same room a pod."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.autoscaling import arithmetic
from benchmarks.autoscaling.behavior import Behavior
from benchmarks.autoscaling.controller import Bounds
from benchmarks.autoscaling.fleet import Shape
from benchmarks.autoscaling.signals import Signals

RECOMMENDED = Path(__file__).with_name("recommended.json")
BOUNDS = Bounds(lowest=2, highest=40)
SHAPE = Shape()
#: The share of a pod's slots that an autoscaler plans with; the rest is for what comes meanwhile.
HEADROOM = 0.8

#: From what is seen, and the replicas wanted now, to those that are proposed.
Proposal = Callable[[Signals, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """One way of scaling."""

    name: str
    proposal: Proposal
    behavior: Behavior = field(default_factory=Behavior)


def _ready(signals: Signals) -> int:
    return sum(pod.ready for pod in signals.fleet.pods.values())


def _per_pod(of: Callable[[Signals], float], headroom: float = HEADROOM) -> Proposal:
    target = SHAPE.concurrency * headroom
    return lambda signals, now: arithmetic.average_value(now, of(signals), target)


def by_demand(name: str, behavior: Behavior, headroom: float) -> Scaling:
    """Return scaling by demand, as this project recommends it or as a search tries it."""
    return Scaling(
        name=name,
        proposal=_per_pod(lambda signals: signals.latest.demand, headroom),
        behavior=behavior,
    )


def recommended() -> Mapping[str, Any]:
    """Return what is shipped."""
    found: dict[str, Any] = json.loads(RECOMMENDED.read_text("utf-8"))
    return found


def compared() -> list[Scaling]:
    """Return the ways of scaling, the shipped one last."""
    shipped = recommended()
    held = SHAPE.concurrency * HEADROOM
    return [
        Scaling(
            name="CPU 70 %",
            proposal=lambda signals, now: arithmetic.utilization(now, signals.cpu(), 70),
        ),
        Scaling(
            name="active_workflows",
            proposal=lambda signals, now: arithmetic.average(now, signals.active(), held),
        ),
        Scaling(name="lag alone", proposal=_per_pod(lambda signals: signals.latest.waiting)),
        Scaling(
            name="depth as `Value`",
            proposal=lambda signals, now: arithmetic.value(
                now, signals.latest.waiting + signals.latest.running, held, _ready(signals)
            ),
        ),
        Scaling(
            name="depth",
            proposal=_per_pod(lambda signals: signals.latest.waiting + signals.latest.running),
        ),
        by_demand("demand", Behavior(), HEADROOM),
        by_demand(
            "demand, shipped behavior",
            Behavior.of(shipped["behavior"]),
            shipped["headroom"],
        ),
    ]
