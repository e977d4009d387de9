"""A worker that was told to leave takes nothing more, whenever it was told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from millstream import Client, Context, Workflows
from millstream.errors import StepError
from millstream.model.run import RunState
from millstream.store import deliveries
from millstream.store.connection import Connection
from millstream.store.deliveries import Holdings
from millstream.store.keys import Lane
from millstream.testing import Harness
from millstream_worker import compose, serve
from millstream_worker.absent import NoTools
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from millstream_worker.lease import Lease
from tests.store.bench import brought

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


class Clinging:
    """Workflows: one that swallows every cancellation, and one that ends after it has begun."""

    def __init__(self) -> None:
        self.app = Workflows()
        self.begun = asyncio.Event()

        @self.app.workflow()
        async def clings(ctx: Context) -> None:
            self.begun.set()
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)

        @self.app.workflow()
        async def ends(ctx: Context) -> None:
            await self.begun.wait()
            # Sessions are released of a run that may have some.
            with contextlib.suppress(StepError):
                await ctx.tool("nobody", "asks")


def outcome_of(program: Callable[[], Awaitable[None]]) -> BaseException | None:
    """Return what ended a program with an event loop of its own, which must end."""
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            anyio.run(program)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert ended, "the program does not end"
    return ended[0]


def test_a_program_ends_although_a_run_of_its_worker_does_not() -> None:
    """A loop is closed when all its tasks have ended: nobody may wait for one that never will."""

    async def program() -> None:
        clinging = Clinging()
        async with Harness(clinging.app) as bench:
            await bench.client.enqueue("clings")
            await clinging.begun.wait()

    assert outcome_of(program) is None


def test_a_worker_with_a_mistake_ends_although_a_run_does_not(memory_url: str) -> None:
    """The mistake is told, instead of a process that hangs and says nothing."""

    class Broken(NoTools):
        def release_run(self, run_id: str) -> None:
            if "/ends" in run_id:
                raise LookupError("a mistake of ours")

    async def program() -> None:
        clinging = Clinging()
        connection = Connection(memory_url)
        parts = compose.Parts(
            connection=connection, emit=lambda _: None, make_log=make_log, tools=Broken()
        )
        worker = await compose.compose(WorkerConfig(), clinging.app, parts)
        async with Client(memory_url) as client:
            await client.enqueue("clings", id="clings")
            await client.enqueue("ends", id="ends")
            try:
                await worker.serve()
            finally:
                worker.stop_renewing()
                await connection.aclose()

    assert isinstance(outcome_of(program), LookupError)


async def test_a_run_that_does_not_let_go_is_handed_back(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody died: the next worker must not count a crash, nor wait for a lease."""
    monkeypatch.setattr(serve, "RELEASE_S", 0.1)
    clinging = Clinging()
    connection = Connection(memory_url)
    parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
    worker = await compose.compose(WorkerConfig(grace=0.0), clinging.app, parts)
    async with Client(memory_url) as client:
        run = await client.enqueue("clings")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(worker.serve)
                await clinging.begun.wait()
                worker.drain.set()
        status = await run.status()
    await connection.aclose()
    assert worker.stuck
    assert (status.state, status.crashes, status.attempt) == (RunState.QUEUED, 0, 1)


async def test_what_a_read_brings_while_it_is_ended_is_handed_back_at_once(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is nobody's until then, and the worker may take its whole grace to leave."""
    app = Workflows()
    begun, finish = anyio.Event(), anyio.Event()
    late: list[str] = []

    @app.workflow()
    async def flow(ctx: Context) -> None:
        begun.set()
        await finish.wait()

    connection = Connection(memory_url)
    parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
    worker = await compose.compose(WorkerConfig(), app, parts)
    lane = Lane("default")
    async with Client(memory_url) as client:
        compare = deliveries.holdings

        async def holdings(*args: Any) -> Holdings:
            found = await compare(*args)
            if worker.drain.is_set() and not late:
                # Compared, and not yet closed: this is what the read brings last. Where it was
                # closed already, another one stands in for it.
                late.append((await client.enqueue("flow")).id)
                await brought(connection, connection.client, lane, worker.token)
                assert await _held(connection, lane) == 2
            return found

        monkeypatch.setattr(deliveries, "holdings", holdings)
        run = await client.enqueue("flow")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(worker.serve)
                await begun.wait()
                worker.drain.set()
                while not late or await _held(connection, lane) != 1:
                    await anyio.sleep(0.005)
                assert (await run.status()).state is RunState.RUNNING
                assert (await client.run(late[0]).status()).state is RunState.QUEUED
                finish.set()
    await connection.aclose()


async def _held(connection: Connection, lane: Lane) -> int:
    """How many deliveries somebody holds."""
    return sum(
        [
            int((await connection.client.xpending(lane.stream(level), "workers"))["pending"])
            for level in ("resume", "normal")
        ]
    )
