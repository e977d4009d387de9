"""What turns cost: many tenants who all wait, beside one tenant who has a queue to itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only
from benchmarks.measures.drain import rate_and_costs

_LIMIT_S = 30.0
_COSTS = {"rate", "worker cpu", "server cpu", "redis commands"}


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    """A few runs of one tenant first, then many of all tenants, in turn as they came."""
    server: list[float] = []
    for name, tenants, queued in (
        ("one tenant", 1, sizes.backlog_small),
        (f"{sizes.tenants:,} tenants", sizes.tenants, sizes.backlog_large),
    ):
        for figure in _drained(sizes, system, tenants, queued):
            if figure.metric == "server cpu" and figure.value is not None:
                server.append(figure.value)
            yield replace(figure, metric=f"{figure.metric}, {name}")
    yield Figure("server cpu, many to one", server[1] / server[0], "ratio", "lower")


def _drained(sizes: Sizes, system: System, tenants: int, queued: int) -> Iterator[Figure]:
    with Bench(system, environment={"BENCH_TENANTS": str(tenants)}) as bench:
        bench.load()
        bench.fill("noop", queued)
        bench.begin()
        begun = bench.all_at_work()
        ended = bench.until_done(begun.done + sizes.backlog_window, _LIMIT_S)
        yield from (x for x in rate_and_costs(begun, ended) if x.metric in _COSTS)


MEASURES = [
    Measure(
        "tenants",
        "the drain of a million runs of 1,000 tenants beside that of ten thousand of one",
        _take,
        usually=only("millstream"),
        possible=only("millstream"),
    )
]
