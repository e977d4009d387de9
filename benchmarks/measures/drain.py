"""Draining: jobs that are queued already are run to their end, and what that costs.

The rate is taken from the moment when every worker has ended a job, until all jobs ended or the
window is over, so that starting a process is not measured.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from benchmarks.bench import Bench, Snapshot
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, queues
from benchmarks.systems import STEPS

_MICRO = 1e6
#: Nobody needs that long for a fixed number of jobs.
_LIMIT_S = 60.0


def _drain(
    sizes: Sizes, system: System, *, workers: int = 1, appendonly: bool = False
) -> Iterator[Figure]:
    count = min(sizes.drain, system.drain * workers)
    with Bench(system, appendonly=appendonly) as bench:
        bench.load(workers)
        bench.fill("noop", count)
        bench.begin()
        begun = bench.all_at_work()
        ended = bench.until_done(count, sizes.window_s)
        yield from rate_and_costs(begun, ended)


def rate_and_costs(begun: Snapshot, ended: Snapshot) -> Iterator[Figure]:
    """Return what was done a second, and what one job took of everything."""
    jobs = max(1, ended.done - begun.done)
    seconds = ended.at - begun.at
    yield Figure("rate", (ended.done - begun.done) / seconds, "jobs/s", "higher")
    cpu = ended.workers_cpu_s - begun.workers_cpu_s
    yield Figure("worker cpu", _MICRO * cpu / jobs, "us/job", "lower")
    was, now = begun.server, ended.server
    yield Figure("server cpu", _MICRO * (now.cpu_s - was.cpu_s) / jobs, "us/job", "lower")
    counted = {
        ("redis commands", "1/job"): (was.commands, now.commands),
        ("scripts", "1/job"): (was.scripts, now.scripts),
        ("bytes to redis", "bytes/job"): (was.bytes_in, now.bytes_in),
        ("bytes from redis", "bytes/job"): (was.bytes_out, now.bytes_out),
    }
    for (metric, unit), (first, last) in counted.items():
        if first is not None and last is not None:
            yield Figure(metric, (last - first) / jobs, unit, "lower")


def _sleepers(sizes: Sizes, system: System) -> Iterator[Figure]:
    """Jobs that wait 50 ms, a hundred at a time: from the first beginning to the last end."""
    with Bench(system) as bench:
        bench.load()
        bench.fill("io", sizes.sleepers)
        bench.begin()
        began = bench.first_began()
        ended = bench.until_done(sizes.sleepers, _LIMIT_S)
        took = ended.at - began if ended.done == sizes.sleepers else None
        yield Figure(f"{sizes.sleepers} x 50 ms", took, "s", "lower", _LIMIT_S)


def _steps(sizes: Sizes, system: System) -> Iterator[Figure]:
    """Runs of five recorded steps; for queues without steps, chains of five jobs.

    Steps are counted, not runs: in a queue all first jobs come before all second ones, so the
    ends of the chains lie together at the end.
    """
    count = min(sizes.chains, max(1, system.drain // 10))
    with Bench(system) as bench:
        bench.load()
        bench.fill("chain", count)
        bench.begin()
        begun = bench.all_at_work()
        ended = bench.until_done(STEPS * count, 3 * sizes.window_s)
        runs = max(1, ended.done - begun.done) / STEPS
        yield Figure("runs of five", runs / (ended.at - begun.at), "runs/s", "higher")
        cpu = ended.workers_cpu_s - begun.workers_cpu_s
        yield Figure("worker cpu", _MICRO * cpu / runs, "us/run", "lower")


def _has_redis(system: System) -> bool:
    return system.server == "redis" and queues(system)


MEASURES = [
    Measure("drain", "no-op jobs through one worker, and what one costs", _drain),
    Measure("drain2", "no-op jobs through two workers", functools.partial(_drain, workers=2)),
    Measure(
        "drain_aof",
        "the drain with an append-only file, synced once a second",
        functools.partial(_drain, appendonly=True),
        usually=lambda system: system.name in {"millstream", "bare"},
        possible=_has_redis,
    ),
    Measure("io", "jobs that wait 50 ms, a hundred at a time", _sleepers, usually=_has_redis),
    Measure("steps", "five durable steps a run, or five chained jobs", _steps),
]
