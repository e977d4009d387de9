"""Latency: from an enqueue until its result is at hand, one at a time, some ms apart."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes

_PAUSE_S = 0.005


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    with Bench(system) as bench:
        caller = bench.caller()
        bench.start()
        took = caller.ask(
            op="latency",
            job="noop",
            samples=sizes.latencies,
            seconds=sizes.latency_s,
            pause=_PAUSE_S,
        )
    yield Figure("p50", at(took, 0.5), "ms", "lower")
    yield Figure("p99", at(took, 0.99), "ms", "lower")


def at(values: list[float], share: float) -> float | None:
    """Return the value below which a share of the values lies."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else None


MEASURES = [Measure("latency", "enqueue to result, one at a time", _take)]
