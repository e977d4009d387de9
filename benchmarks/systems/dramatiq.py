"""dramatiq: one process with a hundred threads, results in Redis, where waiting for them blocks."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.systems import HOLD_S, IO_S, TUNED, URL, Adapter, arguments
from benchmarks.tally import arrive

_TUNED: dict[str, Any] = {"heartbeat_timeout": 5000, "maintenance_chance": 100_000}
broker = RedisBroker(url=URL, **(_TUNED if TUNED else {}))
broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Do nothing."""
    tally.done()


@dramatiq.actor
def io() -> None:
    """Wait as for I/O."""
    tally.begun(0)
    time.sleep(IO_S)
    tally.done()


@dramatiq.actor
def chain(left: int) -> None:
    """Enqueue the next of five jobs."""
    if left > 1:
        chain.send(left=left - 1)
    tally.done()


@dramatiq.actor
def hold(number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    time.sleep(HOLD_S)


_ACTORS: dict[str, Any] = {"noop": noop, "io": io, "chain": chain, "hold": hold}


class Dramatiq(Adapter):
    """`send`, which blocks; there is no bulk call."""

    blocking = True

    def enqueue_now(self, job: str) -> Any:
        """Enqueue one message."""
        return _ACTORS[job].send(**arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue messages one after the other."""
        for number in range(count):
            _ACTORS[job].send(**arguments(job, number))

    async def result(self, handle: Any) -> None:
        """Block until the result is there."""
        handle.get_result(block=True, timeout=30_000)


ADAPTER = Dramatiq
tally = arrive()
