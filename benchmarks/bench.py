"""One system on servers and processes of its own, for one sample of one measure."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import tally
from benchmarks.catalogue import System
from benchmarks.environments import ROOT, python_of
from benchmarks.processes import Child, wait_until
from benchmarks.servers import Counters, Server, postgres_server, redis_cluster, redis_server

_START_LIMIT_S = 60.0
#: The environment of a child: nothing that could change what it does, but what it needs to run.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What had been done, and at what cost, at one moment."""

    at: float
    done: int
    workers_cpu_s: float
    server: Counters


class Bench:
    """Use it as a context manager; everything it started is ended at its end."""

    def __init__(
        self,
        system: System,
        *,
        appendonly: bool = False,
        tuned: bool = False,
        masters: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.system = system
        self.workers: list[Child] = []
        self.server: Server
        self._appendonly = appendonly
        self._tuned = tuned
        self._masters = masters
        self._more = dict(environment or {})
        self._loading: list[Child] = []
        self._readings: list[tally.Reading] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="millstream-bench-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._tally = self.directory / "tally"
        self._tally.mkdir()
        self.server = self._stack.enter_context(self._starts())

    def _starts(self) -> AbstractContextManager[Server]:
        if self.system.server == "postgres":
            return postgres_server(self.directory)
        if self._masters:
            return redis_cluster(self.directory, self._masters)
        return redis_server(self.directory, appendonly=self._appendonly)

    def run(self, command: Sequence[str], name: str, *, role: str, speaks: bool = False) -> Child:
        """Start a process of the system."""
        child = Child(
            command,
            log=self.directory / f"{name}.log",
            environment=self._environment(role, name),
            directory=self.directory,
            speaks=speaks,
        )
        return self._stack.enter_context(child)

    def caller(self) -> Child:
        """Start the process that enqueues, and return when it is connected."""
        command = [str(python_of(self.system.name)), "-m", "benchmarks.caller", self.system.name]
        child = self.run(command, "caller", role="caller", speaks=True)
        child.hear()
        return child

    def fill(self, job: str, count: int) -> None:
        """Enqueue jobs from a caller that leaves again."""
        with self.caller() as caller:
            caller.ask(op="bulk", job=job, count=count)

    def load(
        self, count: int = 1, *, name: str = "worker", flags: Sequence[str] = ()
    ) -> list[Child]:
        """Start workers, which load their code and wait at the gate."""
        command = [*self.system.command(tuned=self._tuned), *flags]
        names = [f"{name}-{number}" for number in range(1, count + 1)]
        self._loading = [self.run(command, each, role="worker") for each in names]
        self.workers += self._loading
        return self._loading

    def begin(self) -> None:
        """Open the gate when all workers that are loading have come to it."""
        wanted = len(self._readings) + len(self._loading)
        wait_until(
            lambda: len(tally.arrived(self._tally)) == wanted,
            _START_LIMIT_S,
            "all workers have loaded",
            self._loading,
        )
        self._readings = tally.arrived(self._tally)
        self._loading = []
        tally.open_gate(self._tally)

    def start(
        self, count: int = 1, *, name: str = "worker", flags: Sequence[str] = ()
    ) -> list[Child]:
        """Start workers, and let them begin when all have loaded."""
        started = self.load(count, name=name, flags=flags)
        self.begin()
        return started

    @property
    def done(self) -> int:
        """How many jobs ended."""
        return sum(reading.done for reading in self._readings)

    def begun(self, without: frozenset[int] = frozenset()) -> set[int]:
        """Return the numbers of the jobs that began, but for those in some processes."""
        readings = [each for each in self._readings if each.pid not in without]
        return {number for reading in readings for number in reading.begun}

    @property
    def pids(self) -> frozenset[int]:
        """The processes that count."""
        return frozenset(reading.pid for reading in self._readings)

    def all_at_work(self) -> Snapshot:
        """Return the moment when every worker has ended a job."""
        wait_until(
            lambda: all(reading.done for reading in self._readings),
            _START_LIMIT_S,
            "every worker has ended a job",
            self.workers,
        )
        return self.snapshot()

    def first_began(self) -> float:
        """Return the moment when the first job began that says so."""
        wait_until(
            lambda: any(reading.first_begun for reading in self._readings),
            _START_LIMIT_S,
            "a job begins",
            self.workers,
        )
        return time.perf_counter()

    def until_done(self, count: int, seconds: float) -> Snapshot:
        """Return the moment when so many jobs ended, or when the time is up."""
        end = time.perf_counter() + seconds
        while self.done < count and time.perf_counter() < end:
            time.sleep(0.0005)
            for child in self.workers:
                if not child.alive:
                    raise child.failed("ended in the middle")
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """Return what has been done by now."""
        at, done = time.perf_counter(), self.done
        cpu = sum(child.cpu_s() for child in self.workers)
        return Snapshot(at, done, cpu, self.server.counters())

    def _environment(self, role: str, name: str) -> dict[str, str]:
        path = os.pathsep.join(str(ROOT / part) for part in ("", "worker", "scheduler"))
        kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
        settings: dict[str, Any] = {
            "BENCH_URL": self.server.url,
            "BENCH_ROLE": role,
            "BENCH_NAME": name,
            "BENCH_PID": os.getpid(),
            "BENCH_TALLY": self._tally,
            "BENCH_TUNED": int(self._tuned),
            "MILLSTREAM_REDIS": self.server.url,
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return kept | {key: str(value) for key, value in settings.items()} | self._more
