"""Enqueueing: in bulk and one by one; and the memory that a queued job takes in Redis."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes
from benchmarks.processes import Child

_MICRO = 1e6


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    """Nobody works meanwhile: what is measured is the caller and the server alone."""
    with Bench(system) as bench:
        yield from _bulk(bench, min(sizes.bulk, system.drain))
        caller = bench.caller()
        yield from _callers(caller, 1, sizes.enqueue_s)
        yield from _callers(caller, 100, sizes.enqueue_s)


def _bulk(bench: Bench, count: int) -> Iterator[Figure]:
    before = bench.server.counters()
    with bench.caller() as caller:
        took = caller.ask(op="bulk", job="noop", count=count)
    # Its connections are closed: their buffers are no part of what a job takes.
    after = bench.server.counters()
    yield Figure("bulk", took["count"] / took["seconds"], "jobs/s", "higher")
    cpu = _MICRO * took["cpu_s"] / took["count"]
    yield Figure("client cpu, bulk", cpu, "us/job", "lower")
    if after.memory is not None and before.memory is not None:
        grown = (after.memory - before.memory) / count
        yield Figure("redis bytes a queued job", grown, "bytes", "lower")


def _callers(caller: Child, callers: int, seconds: float) -> Iterator[Figure]:
    took = caller.ask(op="one_by_one", job="noop", callers=callers, seconds=seconds)
    who = "1 caller" if callers == 1 else f"{callers} callers"
    yield Figure(f"one by one, {who}", took["count"] / took["seconds"], "jobs/s", "higher")
    cpu = _MICRO * took["cpu_s"] / took["count"]
    yield Figure(f"client cpu, {who}", cpu, "us/job", "lower")


MEASURES = [Measure("enqueue", "enqueue in bulk and one by one, with 1 and 100 callers", _take)]
