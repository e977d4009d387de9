"""What workers have done, counted in memory that they share with the benchmark.

A job adds to a counter in a file that is mapped into memory: about a tenth of a microsecond, no
command to the server that is measured, and the same for every system. This module is imported in
the environments of the peers, so it needs the standard library alone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from pathlib import Path

#: Numbered jobs mark a place of their own, so that it can be told which of them began.
NUMBERS = 1024
_DONE, _FIRST = 0, 8
_SIZE = 8 * (_FIRST + NUMBERS)
_GATE = "gate"
_GATE_LIMIT_S = 120.0


class Tally:
    """The counters of one process. Jobs call `done` when they end, `begun` where they begin."""

    def __init__(self, path: Path) -> None:
        # It gets its name when it is whole: others look for names.
        draft = path.with_suffix(".draft")
        with draft.open("w+b") as file:
            file.truncate(_SIZE)
            self._places = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")
        draft.rename(path)
        # Some systems run jobs in threads, where `+=` could lose a count.
        self._lock = threading.Lock()

    def done(self) -> None:
        """Count a job that ended."""
        with self._lock:
            self._places[_DONE] += 1

    def begun(self, number: int) -> None:
        """Mark a numbered job that began."""
        with self._lock:
            self._places[_FIRST + number] += 1


class Reading:
    """The counters of another process, as they stand now."""

    def __init__(self, path: Path) -> None:
        self.pid = int(path.name)
        with path.open("r+b") as file:
            self._places = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")

    @property
    def done(self) -> int:
        """How many jobs ended."""
        return self._places[_DONE]

    @property
    def first_begun(self) -> bool:
        """Whether the job with the number 0 began."""
        return self._places[_FIRST] > 0

    @property
    def begun(self) -> set[int]:
        """The numbers of the jobs that began."""
        return {n for n in range(NUMBERS) if self._places[_FIRST + n]}


def arrive() -> Tally:
    """Open this process's counters, then wait at the gate until all workers may begin.

    A system's module calls it in its last line, so that what comes after is connecting alone. In
    a process that is no worker it counts into nothing and returns at once.
    """
    if os.environ.get("BENCH_ROLE") != "worker":
        return _Deaf()

    if os.getppid() != int(os.environ["BENCH_PID"]):
        # A child of the system's own launcher: it leaves with that, however that ends.
        ctypes.CDLL(None).prctl(1, 9)
    directory = Path(os.environ["BENCH_TALLY"])
    tally = Tally(directory / str(os.getpid()))
    deadline = time.monotonic() + _GATE_LIMIT_S
    while not (directory / _GATE).exists():
        if time.monotonic() > deadline:
            raise SystemExit("the gate stayed shut")
        time.sleep(0.002)

    return tally


def open_gate(directory: Path) -> None:
    """Let the workers begin."""
    (directory / _GATE).touch()


def arrived(directory: Path) -> list[Reading]:
    """Return the counters of all workers that have come so far."""
    return [Reading(path) for path in sorted(directory.iterdir()) if path.name.isdigit()]


class _Deaf(Tally):
    """The counters of a process that only enqueues."""

    def __init__(self) -> None:
        pass

    def done(self) -> None:
        """Count nothing."""

    def begun(self, number: int) -> None:
        """Mark nothing."""
