"""arq: ``arq``, uvloop through the loop's policy."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.systems import CONCURRENCY, HOLD_S, IO_S, TUNED, URL, Adapter, arguments
from benchmarks.tally import arrive

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
_REDIS = RedisSettings.from_dsn(URL or "redis://127.0.0.1")
_CHUNK = 500


async def noop(ctx: Any) -> None:
    """Do nothing."""
    tally.done()


async def io(ctx: Any) -> None:
    """Wait as for I/O."""
    tally.begun(0)
    await asyncio.sleep(IO_S)
    tally.done()


async def chain(ctx: Any, left: int) -> None:
    """Enqueue the next of five jobs."""
    if left > 1:
        await ctx["redis"].enqueue_job("chain", left=left - 1)
    tally.done()


async def hold(ctx: Any, number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await asyncio.sleep(HOLD_S)


class WorkerSettings:
    """What ``arq`` reads."""

    functions = (noop, io, chain, hold)
    redis_settings = _REDIS
    max_jobs = CONCURRENCY
    job_timeout = 5 if TUNED else 300


class Arq(Adapter):
    """`enqueue_job`; many at once are gathered, since there is no bulk call."""

    async def open(self) -> None:
        """Connect."""
        self._redis = await create_pool(_REDIS)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def enqueue(self, job: str) -> Any:
        """Enqueue one job."""
        return await self._redis.enqueue_job(job, **arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue jobs, some hundred at the same time."""
        for first in range(0, count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, count))
            calls = (self._redis.enqueue_job(job, **arguments(job, n)) for n in numbers)
            await asyncio.gather(*calls)

    async def result(self, handle: Any) -> None:
        """Ask for the result every millisecond; the default is every 500."""
        await handle.result(timeout=30, poll_delay=0.001)


ADAPTER = Arq
tally = arrive()
