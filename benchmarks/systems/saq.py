"""SAQ: ``saq``, JSON, uvloop through the loop's policy; defaults, so ten seconds a job at most."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from saq import Queue

from benchmarks.systems import CONCURRENCY, HOLD_S, IO_S, TUNED, URL, Adapter, arguments
from benchmarks.tally import arrive

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(URL)
#: Recovery is by the job's timeout, and only where retries are left.
_OPTIONS: dict[str, Any] = {"timeout": 5, "retries": 5} if TUNED else {}
_CHUNK = 500


async def noop(ctx: Any) -> None:
    """Do nothing."""
    tally.done()


async def io(ctx: Any) -> None:
    """Wait as for I/O."""
    tally.begun(0)
    await asyncio.sleep(IO_S)
    tally.done()


async def chain(ctx: Any, *, left: int) -> None:
    """Enqueue the next of five jobs."""
    if left > 1:
        await queue.enqueue("chain", left=left - 1)
    tally.done()


async def hold(ctx: Any, *, number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await asyncio.sleep(HOLD_S)


class Saq(Adapter):
    """`Queue.enqueue`; many at once are gathered, since there is no bulk call."""

    async def open(self) -> None:
        """Connect."""
        await queue.connect()

    async def close(self) -> None:
        """Disconnect."""
        await queue.disconnect()

    async def enqueue(self, job: str) -> Any:
        """Enqueue one job."""
        return await queue.enqueue(job, **arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue jobs, some hundred at the same time."""
        for first in range(0, count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, count))
            calls = (queue.enqueue(job, **arguments(job, n), **_OPTIONS) for n in numbers)
            await asyncio.gather(*calls)

    async def result(self, handle: Any) -> None:
        """Ask for the result every millisecond.

        Its subscription, `refresh(until_complete=...)`, waits in vain for a job that ends between
        the reading and the subscribing, which is what no-op jobs do.
        """
        await handle.refresh()
        while not handle.completed:
            await asyncio.sleep(0.001)
            await handle.refresh()


ADAPTER = Saq
settings = {
    "queue": queue,
    "functions": [noop, io, chain, hold],
    "concurrency": CONCURRENCY,
    "timers": {"sweep": 1} if TUNED else {},
}
tally = arrive()
