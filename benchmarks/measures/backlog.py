"""Whether the cost of a job grows with the length of its queue."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only

_LIMIT_S = 30.0


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    rates = []
    for name, queued in (("short", sizes.backlog_small), ("long", sizes.backlog_large)):
        with Bench(system) as bench:
            before = bench.server.counters().memory or 0
            bench.fill("noop", queued)
            bytes_each = ((bench.server.counters().memory or 0) - before) / queued
            (worker,) = bench.start()
            begun = bench.all_at_work()
            memory = worker.memory().rss
            ended = bench.until_done(begun.done + sizes.backlog_window, _LIMIT_S)
            rates.append((ended.done - begun.done) / (ended.at - begun.at))
            yield Figure(f"rate, {name} queue", rates[-1], "jobs/s", "higher")
            yield Figure(f"redis bytes a job, {name} queue", bytes_each, "bytes", "lower")
            grown = worker.memory().rss - memory
            yield Figure(f"worker grew, {name} queue", grown, "MiB", "lower")
    yield Figure("rate, long to short", rates[1] / rates[0], "ratio", "higher")


MEASURES = [
    Measure(
        "backlog",
        "the drain at a million queued jobs beside that at ten thousand",
        _take,
        usually=only("millstream"),
        possible=lambda system: system.server == "redis",
    )
]
