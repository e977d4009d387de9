"""What is measured. Each measure is a function from (sizes, system) to figures.

A figure is one number of one sample; the runner repeats samples, and the report makes medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.catalogue import SYSTEMS, System

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; the default is the whole."""

    enqueue_s: float = 0.7
    bulk: int = 10_000
    #: Most jobs that one drain is filled with, and seconds after which its rate is taken.
    drain: int = 20_000
    window_s: float = 2.0
    sleepers: int = 5_000
    latencies: int = 150
    latency_s: float = 2.0
    chains: int = 2_000
    tool_runs: int = 300
    idle_s: float = 2.0
    settle_s: float = 1.0
    backlog_small: int = 10_000
    backlog_large: int = 1_000_000
    backlog_window: int = 8_000
    tenants: int = 1_000
    held: int = 100


QUICK = Sizes(
    enqueue_s=0.2,
    bulk=500,
    drain=1_000,
    window_s=1.0,
    sleepers=300,
    latencies=20,
    latency_s=1.0,
    chains=200,
    tool_runs=20,
    idle_s=0.5,
    settle_s=0.5,
    backlog_small=2_000,
    backlog_large=10_000,
    backlog_window=1_000,
    tenants=100,
    held=20,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one sample. ``value`` None: it did not come within ``limit``."""

    metric: str
    value: float | None
    unit: str
    better: Better
    limit: float | None = None


Take = Callable[[Sizes, System], Iterator[Figure]]


def queues(system: System) -> bool:
    """Whether jobs can be enqueued at all."""
    return not system.only_calls


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure: what it says, how a sample is taken, and of whom when nobody is named."""

    name: str
    says: str
    take: Take
    #: Whether a system takes part unless asked for by name.
    usually: Callable[[System], bool] = queues
    #: Whether a system can take part at all.
    possible: Callable[[System], bool] = queues


def measures() -> dict[str, Measure]:
    """Return all measures by name, in the order in which they are taken."""
    # Imported here, since each of them imports this module.
    from benchmarks.measures import (  # noqa: PLC0415
        backlog,
        drain,
        enqueue,
        idle,
        lanes,
        latency,
        recovery,
        tenants,
        tools,
    )

    parts = (enqueue, drain, latency, tools, idle, backlog, tenants, lanes, recovery)
    return {each.name: each for part in parts for each in part.MEASURES}


def only(*names: str) -> Callable[[System], bool]:
    """Return a rule that holds for some systems."""
    assert set(names) <= set(SYSTEMS)
    return lambda system: system.name in names
