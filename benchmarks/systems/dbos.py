"""DBOS on Postgres: ``DBOSClient`` enqueues, one process runs workflows of a queue.

The queue is polled every 10 ms instead of every second, so that polling is not what is measured.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.systems import CONCURRENCY, HOLD_S, IO_S, STEPS, URL, Adapter, arguments
from benchmarks.tally import arrive

_QUEUE, _POLL_S = "bench", 0.01
_CHUNK = 500
_SQL_URL = URL.replace("postgresql://", "postgresql+psycopg://")
_CONFIG: DBOSConfig = {
    "name": "bench",
    "system_database_url": URL,
    "application_version": "1",
    # The same after a restart: a process recovers its own workflows.
    "executor_id": os.environ.get("BENCH_NAME", "worker-1"),
    "run_admin_server": False,
    "log_level": "WARNING",
}


@DBOS.workflow()
async def noop() -> None:
    """Do nothing."""
    tally.done()


@DBOS.workflow()
async def io() -> None:
    """Wait as for I/O."""
    tally.begun(0)
    await asyncio.sleep(IO_S)
    tally.done()


@DBOS.step()
async def _number(number: int) -> int:
    return number


@DBOS.workflow()
async def chain(left: int) -> int:
    """Record five steps, one after the other."""
    total = 0
    for number in range(STEPS):
        total += await _number(number)
        tally.done()
    return total


@DBOS.workflow()
async def hold(number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await asyncio.sleep(HOLD_S)


def work() -> None:
    """Serve for ever."""
    DBOS(config=_CONFIG)
    DBOS.launch()
    DBOS.register_queue(_QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=_POLL_S)
    threading.Event().wait()


class Dbos(Adapter):
    """`enqueue_async`; many at once in transactions of some hundred."""

    async def open(self) -> None:
        """Make the schema, as the first worker would, and connect."""
        await asyncio.to_thread(self._migrate)
        self._client = DBOSClient(system_database_url=URL, system_database_pool_size=20)
        self._engine = sa.create_engine(_SQL_URL)

    async def close(self) -> None:
        """Disconnect."""
        self._client.destroy()
        self._engine.dispose()

    async def enqueue(self, job: str) -> Any:
        """Enqueue one workflow."""
        return await self._client.enqueue_async(_options(job), **arguments(job, 0))

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue workflows in transactions."""
        await asyncio.to_thread(self._enqueue_many, job, count)

    async def result(self, handle: Any) -> None:
        """Ask for the result every 10 ms; the default is every second."""
        await handle.get_result(polling_interval_sec=0.01)

    def _migrate(self) -> None:
        DBOS(config=_CONFIG)
        DBOS.launch()
        DBOS.destroy()

    def _enqueue_many(self, job: str, count: int) -> None:
        for first in range(0, count, _CHUNK):
            with self._engine.begin() as connection:
                for number in range(first, min(first + _CHUNK, count)):
                    self._client.enqueue_in_transaction(
                        connection, _options(job), **arguments(job, number)
                    )


def _options(job: str) -> Any:
    return {"queue_name": _QUEUE, "workflow_name": job, "app_version": "1"}


ADAPTER = Dbos
tally = arrive()

if __name__ == "__main__":
    work()
