"""What lanes cost and bring: one queue on a cluster of three masters, with more and more lanes.

All masters, the workers and the one who fills the queue share this machine, so a rate here says
what a lane costs and who is at the limit. `docs/scale.md` reckons with a core for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only
from benchmarks.measures.drain import rate_and_costs
from millstream import SyncClient

_MASTERS = 3
_LANES = (1, 3, 6, 12)
_WORKERS = (1, 2)


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    for workers in _WORKERS:
        for lanes in _LANES:
            for figure in _drained(sizes, system, lanes, workers):
                yield replace(figure, metric=f"{figure.metric}, {lanes} lanes, {workers} workers")


def _drained(sizes: Sizes, system: System, lanes: int, workers: int) -> Iterator[Figure]:
    count = sizes.drain * workers
    with Bench(system, masters=_MASTERS) as bench:
        with SyncClient(bench.server.url) as client:
            client.resize("default", lanes=lanes)
        bench.load(workers)
        bench.fill("noop", count)
        bench.begin()
        begun = bench.all_at_work()
        ended = bench.until_done(count, sizes.window_s)
        yield from rate_and_costs(begun, ended)


MEASURES = [
    Measure(
        "lanes",
        "the drain of a queue on three masters, by the number of its lanes",
        _take,
        usually=only("millstream"),
        possible=only("millstream"),
    )
]
