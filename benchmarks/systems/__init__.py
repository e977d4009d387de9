"""The systems that are measured. A module here runs in the environment of its system.

It has the worker's side (the jobs, counted by `benchmarks.tally`) and the caller's side: a class
``ADAPTER``. Everybody runs the same jobs: ``noop`` does nothing, ``io`` waits 50 ms, ``chain`` is
five recorded steps or five jobs that enqueue each other, each of them counted, and ``hold`` waits
until its worker is killed. Settings are what each system's documentation recommends, with results
stored.
"""

from __future__ import annotations

import os
from typing import Any

URL = os.environ.get("BENCH_URL", "")
#: Jobs that one worker runs at once.
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "100"))
#: Set for the measure of recovery with short leases.
TUNED = os.environ.get("BENCH_TUNED") == "1"
IO_S = 0.05
HOLD_S = 600.0
STEPS = 5


class Adapter:
    """How a caller uses a system."""

    #: Calls block, and so need threads to be made at the same time.
    blocking = False

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect."""

    async def enqueue(self, job: str) -> Any:
        """Enqueue one job; what is returned is given to `result`."""
        return self.enqueue_now(job)

    def enqueue_now(self, job: str) -> Any:
        """Enqueue one job and block meanwhile."""
        raise NotImplementedError

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue many jobs in the quickest way that the system has."""
        raise NotImplementedError

    async def result(self, handle: Any) -> None:
        """Wait for the result of a job."""
        raise NotImplementedError


def arguments(job: str, number: int) -> dict[str, int]:
    """Return what a job is called with."""
    return {"hold": {"number": number}, "chain": {"left": STEPS}}.get(job, {})
