"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only
from benchmarks.measures.tools import null_server, server_file


def _idle(sizes: Sizes, system: System) -> Iterator[Figure]:
    with Bench(system) as bench:
        yield from _watch(sizes, bench, ())


def _idle_with_tools(sizes: Sizes, system: System) -> Iterator[Figure]:
    """The same with an MCP server declared, which loads the SDK."""
    with Bench(system) as bench:
        _, url = null_server(bench)
        yield from _watch(sizes, bench, ("--mcp", str(server_file(bench.directory, url))))


def _watch(sizes: Sizes, bench: Bench, flags: Sequence[str]) -> Iterator[Figure]:
    # It has run something: a pool of connections and a first script are part of a worker.
    (worker,) = bench.load(flags=flags)
    bench.fill("noop", 10)
    bench.begin()
    bench.all_at_work()
    time.sleep(sizes.settle_s)
    before, commands = worker.fine_cpu_s(), bench.server.counters().commands
    began = time.perf_counter()
    time.sleep(sizes.idle_s)
    took = time.perf_counter() - began
    yield Figure("cpu", 100 * (worker.fine_cpu_s() - before) / took, "% of a core", "lower")
    after = bench.server.counters().commands
    if commands is not None and after is not None:
        yield Figure("redis commands", (after - commands) / took, "1/s", "lower")
    memory = worker.memory()
    yield Figure("rss", memory.rss, "MiB", "lower")
    yield Figure("pss", memory.pss, "MiB", "lower")


MEASURES = [
    Measure("idle", "processor and memory of a worker without work", _idle),
    Measure(
        "idle_tools",
        "the same with one MCP server declared",
        _idle_with_tools,
        usually=only("millstream"),
        possible=only("millstream"),
    ),
]
