"""Whether the cost of a job grows with the length of its queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only, queues
from benchmarks.measures.drain import rate_and_costs

_LIMIT_S = 30.0
_COSTS = {"rate", "worker cpu", "server cpu"}


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    rates = []
    for name, queued in (("short", sizes.backlog_small), ("long", sizes.backlog_large)):
        for figure in _drained(sizes, system, queued):
            if figure.metric == "rate" and figure.value is not None:
                rates.append(figure.value)
            yield replace(figure, metric=f"{figure.metric}, {name} queue")
    yield Figure("rate, long to short", rates[1] / rates[0], "ratio", "higher")


def _drained(sizes: Sizes, system: System, queued: int) -> Iterator[Figure]:
    """Fill a queue and work for a while: what a job takes, and whether the worker grows."""
    with Bench(system) as bench:
        before = bench.server.counters().memory or 0
        bench.fill("noop", queued)
        grown = (bench.server.counters().memory or 0) - before
        yield Figure("redis bytes a job", grown / queued, "bytes", "lower")
        (worker,) = bench.start()
        begun = bench.all_at_work()
        memory = worker.memory().rss
        ended = bench.until_done(begun.done + sizes.backlog_window, _LIMIT_S)
        yield from (x for x in rate_and_costs(begun, ended) if x.metric in _COSTS)
        yield Figure("worker grew", worker.memory().rss - memory, "MiB", "lower")


MEASURES = [
    Measure(
        "backlog",
        "the drain at a million queued jobs beside that at ten thousand",
        _take,
        usually=only("millstream"),
        possible=lambda system: system.server == "redis" and queues(system),
    )
]
