"""A worker that was told to leave takes nothing more, whenever it was told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from millstream import Client, Context, Workflows
from millstream.model.run import RunState
from millstream.store.connection import Connection
from millstream_worker import compose
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from millstream_worker.lease import Lease

pytestmark = pytest.mark.anyio


def make_log(*args: Any, **options: Any) -> SilentLog:
    return SilentLog()


async def test_a_drain_in_the_turn_in_which_a_worker_starts(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lanes are closed first and would be opened next, for as long as the grace lasts."""
    waiting, trusted = anyio.Event(), anyio.Event()

    async def until_trusted(_: Lease) -> None:
        waiting.set()
        await trusted.wait()

    monkeypatch.setattr(Lease, "until_trusted", until_trusted)
    app = Workflows()

    @app.workflow()
    async def flow(ctx: Context) -> None:
        """End at once."""

    connection = Connection(memory_url)
    parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
    worker = await compose.compose(WorkerConfig(), app, parts)
    async with Client(memory_url) as client:
        run = await client.enqueue("flow")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(worker.serve)
                await waiting.wait()
                worker.drain.set()
                trusted.set()
        assert (await run.status()).state is RunState.QUEUED
    await connection.aclose()
