"""What Redis and Python allow: a loop of redis-py that takes and ends a hundred at a time.

No retries, no recovery, no journal: the bound that a queue with promises is measured against.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import redis.asyncio
import uvloop

from benchmarks.systems import CONCURRENCY, IO_S, STEPS, URL, Adapter
from benchmarks.tally import arrive

_STREAM, _GROUP, _RECORDS = "jobs", "workers", "records"
_ENDS = "ends"
_KEEP_S = 3600
_PIPE = 500


async def work() -> None:
    """Serve for ever."""
    client = redis.asyncio.from_url(URL, protocol=2)
    await _ensure(client)
    name = str(os.getpid())
    while True:
        reply: Any = await client.xreadgroup(
            _GROUP, name, {_STREAM: ">"}, count=CONCURRENCY, block=5000
        )
        entries = reply[0][1] if reply else []
        if entries:
            await _run(client, entries)


async def _run(client: Any, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    """Run a batch, then acknowledge, delete, store and publish all of it in one pipeline."""
    if entries[0][1][b"job"] == b"chain":
        for step in range(STEPS):
            pipe = client.pipeline(transaction=False)
            for entry, _ in entries:
                pipe.hset(f"{_RECORDS}:{entry.decode()}", str(step), step)
            await pipe.execute()
            for _ in entries:
                tally.done()
    if entries[0][1][b"job"] == b"io":
        tally.begun(0)
        await asyncio.sleep(IO_S)
    pipe = client.pipeline(transaction=False)
    for entry, fields in entries:
        if fields[b"job"] != b"chain":
            tally.done()
        pipe.xack(_STREAM, _GROUP, entry)
        pipe.xdel(_STREAM, entry)
        pipe.set(b"result:" + fields[b"id"], b"null", ex=_KEEP_S)
        pipe.publish(_ENDS, fields[b"id"])
    await pipe.execute()


async def _ensure(client: Any) -> None:
    try:
        await client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


class Bare(Adapter):
    """XADD, alone or in a pipeline, and one subscription for all results."""

    async def open(self) -> None:
        """Connect and subscribe."""
        self._client = redis.asyncio.from_url(URL, protocol=2)
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._outgoing: list[tuple[str, str, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._ends = self._client.pubsub()
        await self._ends.subscribe(_ENDS)
        self._tasks = [asyncio.create_task(each) for each in (self._listen(), self._send())]

    async def close(self) -> None:
        """Disconnect."""
        for task in self._tasks:
            task.cancel()
        await self._ends.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()

    async def enqueue(self, job: str) -> str:
        """Add one entry; what others add in the same moment leaves with it."""
        number, loop = str(next(self._numbers)), asyncio.get_running_loop()
        self._waiting[number] = loop.create_future()
        sent = loop.create_future()
        self._outgoing.append((number, job, sent))
        self._wake.set()
        await sent
        return number

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._outgoing = self._outgoing, []
            pipe = self._client.pipeline(transaction=False)
            for number, job, _ in batch:
                pipe.xadd(_STREAM, {"id": number, "job": job})
            await pipe.execute()
            for _, _, sent in batch:
                sent.set_result(None)

    async def enqueue_many(self, job: str, count: int) -> None:
        """Add entries, some hundred in a pipeline."""
        for first in range(0, count, _PIPE):
            pipe = self._client.pipeline(transaction=False)
            for _ in range(min(_PIPE, count - first)):
                pipe.xadd(_STREAM, {"id": str(next(self._numbers)), "job": job})
            await pipe.execute()

    async def result(self, handle: Any) -> None:
        """Wait until the end is published."""
        await self._waiting[handle]
        del self._waiting[handle]

    async def _listen(self) -> None:
        async for message in self._ends.listen():
            if message["type"] == "message":
                waiting = self._waiting.get(message["data"].decode())
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)


ADAPTER = Bare
tally = arrive()

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
