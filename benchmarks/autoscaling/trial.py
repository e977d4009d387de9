"""One load under one way of scaling, and what came of it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.autoscaling.arithmetic import NoMetric
from benchmarks.autoscaling.controller import SYNC_S, Autoscaler
from benchmarks.autoscaling.fleet import Fleet
from benchmarks.autoscaling.loads import HOUR, Load
from benchmarks.autoscaling.policies import BOUNDS, SHAPE, Scaling
from benchmarks.autoscaling.signals import SAMPLE_S, Signals

#: How long a run may wait before it is taken.
OBJECTIVE_S = 30.0
HOURS = 4.0
_REPLICAS = 4
#: What a pod hour in four hours, and a run that is interrupted, may cost of that share.
_POD_HOUR = 0.0005
_INTERRUPTED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it: seconds, shares from 0 to 1, and numbers of runs."""

    load: str
    scaling: str
    p50_s: float
    p99_s: float
    within: float
    pod_hours: float
    interrupted: int
    runs: int
    hours: float
    #: Over time: runs that want to be running, and slots of ready pods.
    trace: tuple[tuple[float, int, int], ...] = ()


def merit(found: Sequence[Outcome]) -> float:
    """Return the share of runs within the objective, less what that cost; the mean over loads."""
    return statistics.fmean(
        each.within
        - _POD_HOUR * each.pod_hours * HOURS / each.hours
        - _INTERRUPTED * each.interrupted / each.runs
        for each in found
    )


@dataclass(frozen=True, slots=True)
class Outage:
    """The metric is not known for a while; then it is missing, or taken for zero."""

    begins_s: float
    ends_s: float
    as_zero: bool = False


def tried(
    load: Load, scaling: Scaling, seed: int, *, hours: float = HOURS, outage: Outage | None = None
) -> Outcome:
    """Simulate some hours."""
    arrivals = _arrivals(load, seed, hours * HOUR)
    fleet = Fleet(SHAPE, Random(f"fleet {seed}"), _REPLICAS)
    signals = Signals(fleet)
    autoscaler = Autoscaler(BOUNDS, scaling.behavior)
    trace, number = [], 0
    # The autoscaler's rhythm is not that of the readings.
    looks = itertools.count(0.0, SAMPLE_S)
    syncs = itertools.count(Random(f"phase {seed}").uniform(0, SYNC_S), SYNC_S)
    look, sync = next(looks), next(syncs)
    while (now := min(look, sync)) < hours * HOUR:
        while number < len(arrivals) and arrivals[number][0] <= now:
            fleet.advance(arrivals[number][0])
            fleet.arrive(arrivals[number][1])
            number += 1
        fleet.advance(now)
        if now == look:
            signals.look()
            look = next(looks)
        else:
            fleet.scale(_synced(autoscaler, scaling, signals, outage))
            trace.append(_traced(fleet))
            sync = next(syncs)

    return _outcome(load, scaling, fleet, trace)


def _arrivals(load: Load, seed: int, until: float) -> list[tuple[float, float]]:
    """Return what comes in that time; sessions overlap, so it is put in order."""
    source = load.arrivals(Random(f"{load.name} {seed}"))
    found = itertools.takewhile(lambda each: each[0] < until + 60, source)
    return sorted(each for each in found if each[0] < until)


def _synced(
    autoscaler: Autoscaler, scaling: Scaling, signals: Signals, outage: Outage | None
) -> int:
    fleet = signals.fleet
    away = outage is not None and outage.begins_s <= fleet.now < outage.ends_s

    def propose(current: int) -> int:
        if away and outage is not None and outage.as_zero:
            return 0
        if away:
            raise NoMetric
        return scaling.proposal(signals, current)

    return autoscaler.sync(fleet.now, len(fleet.replicas), [propose])


def _traced(fleet: Fleet) -> tuple[float, int, int]:
    slots = sum(SHAPE.concurrency for pod in fleet.replicas if pod.ready)
    return fleet.now, len(fleet.waiting) + fleet.running, slots


def _outcome(
    load: Load, scaling: Scaling, fleet: Fleet, trace: Sequence[tuple[float, int, int]]
) -> Outcome:
    # Those that still wait have waited at least as long: left out, the worst would look best.
    waits = [*fleet.counts.waits]
    waits += [fleet.now - run.arrived for run in fleet.waiting if run.waited_s is None]
    waits.sort()
    return Outcome(
        load=load.name,
        scaling=scaling.name,
        p50_s=waits[len(waits) // 2],
        p99_s=waits[int(len(waits) * 0.99)],
        within=sum(wait <= OBJECTIVE_S for wait in waits) / len(waits),
        pod_hours=fleet.counts.pod_s / HOUR,
        interrupted=fleet.counts.interrupted,
        runs=len(waits),
        hours=fleet.now / HOUR,
        trace=tuple(trace),
    )
