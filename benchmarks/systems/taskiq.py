"""taskiq with the streams broker of taskiq-redis: the one that acknowledges, and so can recover."""

from __future__ import annotations

import asyncio
from typing import Any

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.systems import HOLD_S, IO_S, TUNED, URL, Adapter, arguments
from benchmarks.tally import arrive

_TUNED: dict[str, Any] = {"idle_timeout": 5000, "unacknowledged_lock_timeout": 5.0}
_CHUNK = 500

#: From the beginning of the stream: with the default, "$", what was enqueued before the first
#: worker came is never run.
broker = RedisStreamBroker(URL, consumer_id="0", **(_TUNED if TUNED else {})).with_result_backend(
    RedisAsyncResultBackend(URL, result_ex_time=3600)
)


@broker.task
async def noop() -> None:
    """Do nothing."""
    tally.done()


@broker.task
async def io() -> None:
    """Wait as for I/O."""
    tally.begun(0)
    await asyncio.sleep(IO_S)
    tally.done()


@broker.task
async def chain(left: int) -> None:
    """Enqueue the next of five jobs."""
    if left > 1:
        await chain.kiq(left=left - 1)
    tally.done()


@broker.task
async def hold(number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await asyncio.sleep(HOLD_S)


_TASKS: dict[str, Any] = {"noop": noop, "io": io, "chain": chain, "hold": hold}


class Taskiq(Adapter):
    """`kiq`; many at once are gathered, since there is no bulk call."""

    async def open(self) -> None:
        """Connect."""
        await broker.startup()

    async def close(self) -> None:
        """Disconnect."""
        await broker.shutdown()

    async def enqueue(self, job: str) -> Any:
        """Enqueue one task."""
        return await _TASKS[job].kiq(**arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue tasks, some hundred at the same time."""
        for first in range(0, count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, count))
            await asyncio.gather(*(_TASKS[job].kiq(**arguments(job, n)) for n in numbers))

    async def result(self, handle: Any) -> None:
        """Ask for the result every millisecond; the default is every 200."""
        await handle.wait_result(check_interval=0.001, timeout=30)


ADAPTER = Taskiq
tally = arrive()
