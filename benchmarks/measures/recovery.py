"""Recovery: seconds after a SIGKILL until all that a worker held goes on elsewhere.

A worker holds a hundred jobs, another one is idle; the first is killed. For a system whose work
goes on by a restart, its namesake is started after the kill.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, queues
from benchmarks.processes import Child, wait_until

_PATIENCE_S = 60.0
#: What a whole run of all measures has time to wait for by default.
_SHORT_S = 20.0
#: What a system that is tuned is given when it says nothing better of itself.
_TUNED_LIMIT_S = 20.0
_LONG_S = 420.0
_FEED_S = 0.1


def _take(sizes: Sizes, system: System, *, tuned: bool) -> Iterator[Figure]:
    expected = system.recovers_tuned_s if tuned else system.recovers_s
    limit = max(_TUNED_LIMIT_S, 2 * (expected or 0)) if tuned or expected else _LONG_S
    with Bench(system, tuned=tuned) as bench:
        bench.fill("hold", sizes.held)
        caller = bench.caller()
        (first,) = bench.start(name="worker")
        held = bench.pids
        wait_until(lambda: len(bench.begun()) == sizes.held, _PATIENCE_S, "all are held", [first])
        if not system.by_restart:
            bench.start(name="other")
            time.sleep(sizes.settle_s)
        bench.workers.remove(first)
        first.kill()
        killed = time.perf_counter()
        if system.by_restart:
            bench.start(name="worker")
        took = _until_all_go_on(bench, caller, held, sizes.held, killed + limit)
        lost = sizes.held - len(bench.begun(without=held))
    seconds = None if took is None else took - killed
    yield Figure("killed to all going on", seconds, "s", "lower", limit)
    yield Figure("still lost at the end", lost, "jobs", "lower")


def _until_all_go_on(
    bench: Bench, caller: Child, held: frozenset[int], count: int, end: float
) -> float | None:
    """Return when the last of them began in another process; None when it did not.

    A no-op job comes in now and then: some systems look for lost work only when there is new.
    """
    fed = 0.0
    while (now := time.perf_counter()) < end:
        if len(bench.begun(without=held)) == count:
            return now
        if now - fed > _FEED_S:
            caller.ask(op="bulk", job="noop", count=1)
            fed = now
        time.sleep(0.002)
    return None


def _promises(system: System) -> bool:
    return system.name != "bare" and queues(system)


MEASURES = [
    Measure(
        "recovery",
        "SIGKILL of a worker that holds 100 jobs, with the defaults (others than us on request)",
        functools.partial(_take, tuned=False),
        usually=lambda system: system.recovers_s is not None and system.recovers_s < _SHORT_S,
        possible=_promises,
    ),
    Measure(
        "recovery_tuned",
        "the same with a lease of 1 s, or what comes nearest (5 s)",
        functools.partial(_take, tuned=True),
        usually=lambda system: system.recovers_tuned_s is not None,
        possible=_promises,
    ),
]
