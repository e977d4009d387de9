"""What of a device's work leaves the event loop: handed in, so that it can be simulated."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import anyio.to_thread

from millstream_worker.inference.runner import Done, Job, Runner

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function that may block, and returns what it returned."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""


async def in_thread(function: Callable[[], T], /) -> T:
    """Run a function in a thread of the pool."""
    return await anyio.to_thread.run_sync(function)


class RunsJobs(Protocol):
    """A `Runner`: one job after the other, with at most one ahead."""

    @property
    def under_way(self) -> int:
        """Jobs that were submitted and have not ended."""

    def submit(self, job: Job, done: Done) -> None:
        """Run a job; ``done`` is called on the event loop with what it returned."""

    def withdraw(self) -> bool:
        """Take back the job that has not begun; False when it has."""

    def close(self) -> None:
        """Begin nothing more."""


def _runner(name: str) -> RunsJobs:
    return Runner(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Threads and the clock on the wall, as they are unless somebody says otherwise."""

    in_thread: InThread = in_thread
    runner: Callable[[str], RunsJobs] = _runner
    wall: Callable[[], float] = time.time
