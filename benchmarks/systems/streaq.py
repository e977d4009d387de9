"""streaQ: ``streaq run``, on uvloop."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
from streaq import Worker

from benchmarks.systems import CONCURRENCY, HOLD_S, IO_S, TUNED, URL, Adapter, arguments
from benchmarks.tally import arrive

worker: Any = Worker(
    redis_url=URL,
    concurrency=CONCURRENCY,
    anyio_kwargs={"use_uvloop": True},
    idle_timeout=5 if TUNED else 60,
)
_CHUNK = 500


@worker.task
async def noop() -> None:
    """Do nothing."""
    tally.done()


@worker.task
async def io() -> None:
    """Wait as for I/O."""
    tally.begun(0)
    await anyio.sleep(IO_S)
    tally.done()


@worker.task
async def chain(left: int) -> None:
    """Enqueue the next of five tasks."""
    if left > 1:
        await chain.enqueue(left=left - 1)
    tally.done()


@worker.task
async def hold(number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await anyio.sleep(HOLD_S)


_TASKS: dict[str, Any] = {"noop": noop, "io": io, "chain": chain, "hold": hold}


class Streaq(Adapter):
    """`enqueue` and `enqueue_many`."""

    async def open(self) -> None:
        """Connect."""
        self._stack = contextlib.AsyncExitStack()
        await self._stack.enter_async_context(worker)

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()

    async def enqueue(self, job: str) -> Any:
        """Enqueue one task."""
        return await _TASKS[job].enqueue(**arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue tasks in pipelines."""
        for first in range(0, count, _CHUNK):
            numbers = range(first, min(first + _CHUNK, count))
            await worker.enqueue_many([_TASKS[job].enqueue(**arguments(job, n)) for n in numbers])

    async def result(self, handle: Any) -> None:
        """Wait for the result."""
        await handle.result(30)


ADAPTER = Streaq
tally = arrive()
