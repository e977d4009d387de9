"""The systems by name: how a worker of each is started, and what it can be asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import python_of

_MODULE = "benchmarks.systems."


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One system. ``worker`` is its command line; its first word is a program or a module."""

    name: str
    says: str
    worker: Sequence[str]
    #: Flags of the worker with short leases; others read BENCH_TUNED.
    tuned: Sequence[str] = ()
    server: str = "redis"
    #: Jobs that are enqueued for one drain: enough for the window in which its rate is taken.
    drain: int = 20_000
    #: Not a queue: it only makes MCP calls.
    only_calls: bool = False
    #: A worker's work goes on when it, or its namesake, is started again, and not before.
    by_restart: bool = False
    #: Killed workers' jobs go on within this, by its defaults; None: not within minutes.
    recovers_s: float | None = None
    #: The same when tuned.
    recovers_tuned_s: float | None = None

    def command(self, *, tuned: bool) -> list[str]:
        """Return how a worker is started."""
        python = python_of(self.name)
        program, *rest = self.worker
        start = [str(python), "-m", program] if program.startswith("benchmarks.") else None
        flags = self.tuned if tuned else ()
        return [*(start or [str(_program(python, program))]), *rest, *flags]


def _program(python: Path, name: str) -> Path:
    return python.parent / name


_OURS = System(
    name="millstream",
    says="millstream, as in production: leases, journal, metrics, JSON logs at INFO",
    worker=(
        *("millstream", "worker", f"{_MODULE}millstream:app", "--http", "0", "--metrics", "0"),
        *("--host", "127.0.0.1", "--log-format", "json", "--log-level", "INFO"),
        *("--concurrency", "100"),
    ),
    tuned=("--lease", "1"),
    recovers_s=12,
    recovers_tuned_s=2,
)
_BARE = System(
    name="bare",
    says="a loop of redis-py without promises",
    worker=(f"{_MODULE}bare",),
)
_PEERS = (
    System(name="saq", says="SAQ", worker=("saq", f"{_MODULE}saq.settings"), drain=8_000),
    System(
        name="taskiq",
        says="taskiq with taskiq-redis, streams",
        worker=("taskiq", "worker", f"{_MODULE}taskiq:broker", "--workers", "1"),
        drain=7_000,
        recovers_tuned_s=6,
    ),
    System(
        name="streaq",
        says="streaQ",
        worker=("streaq", "run", f"{_MODULE}streaq:worker"),
        drain=5_000,
        recovers_s=60,
        recovers_tuned_s=6,
    ),
    System(
        name="dramatiq",
        says="dramatiq",
        worker=("dramatiq", f"{_MODULE}dramatiq", "--processes", "1", "--threads", "100"),
        drain=6_000,
        recovers_tuned_s=7,
    ),
    System(
        name="arq",
        says="arq",
        worker=("arq", f"{_MODULE}arq.WorkerSettings"),
        drain=5_000,
        recovers_s=310,
        recovers_tuned_s=15,
    ),
    System(
        name="dbos",
        says="DBOS on Postgres",
        worker=(f"{_MODULE}dbos",),
        server="postgres",
        drain=3_000,
        by_restart=True,
        recovers_tuned_s=3,
    ),
)
_CALLER = System(
    name="mcp-client",
    says="the official MCP client, without a worker or a journal",
    worker=("benchmarks.official_mcp",),
    only_calls=True,
)
SYSTEMS: Mapping[str, System] = {each.name: each for each in (_OURS, _BARE, *_PEERS, _CALLER)}
