"""Several lanes share the slots of a worker: none of them waits for another one to be empty."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream import Client, Context, Enqueue, Workflows
from millstream.events import Event, RunSettled
from millstream.model import ids
from millstream.store.connection import Connection
from millstream_worker import compose, lanes
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from millstream_worker.serve import Worker
from millstream_worker.slots import Slots

pytestmark = pytest.mark.anyio

LANES = 3
RUNS = 120


def make_log(*args: Any, **options: Any) -> SilentLog:
    return SilentLog()


async def test_lanes_get_slots_in_turn(memory_url: str) -> None:
    """More runs than slots, in every lane: whoever is served first must not be served only."""
    app = Workflows()

    @app.workflow()
    async def flow(ctx: Context) -> None:
        await anyio.lowlevel.checkpoint()

    settled: list[str] = []
    done = anyio.Event()

    def emit(event: Event) -> None:
        if isinstance(event, RunSettled):
            settled.append(event.run_id)
            if len(settled) == RUNS:
                done.set()

    connection = Connection(memory_url)
    async with Client(memory_url) as client:
        await client.resize("default", lanes=LANES)
        await client.enqueue_many([Enqueue("flow", id=f"r{n}") for n in range(RUNS)])
        parts = compose.Parts(connection=connection, emit=emit, make_log=make_log)
        worker = await compose.compose(WorkerConfig(concurrency=2), app, parts)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            with anyio.fail_after(60):
                await done.wait()
            worker.drain.set()
    await connection.aclose()

    first_half = Counter(ids.lane_of(run_id, LANES) for run_id in settled[: RUNS // 2])
    assert sorted(first_half) == [0, 1, 2]
    assert min(first_half.values()) >= RUNS // 2 // LANES // 2


def test_whoever_was_told_first_is_told_last_the_next_time() -> None:
    """Who hears first of a free slot gets it."""
    slots = Slots(1)
    heard: list[str] = []
    for name in "abc":
        slots.share(functools.partial(heard.append, name), lambda: True)

    for _ in range(3):
        heard.clear()
        slots.give(1)
        assert sorted(heard) == ["a", "b", "c"]
        first = heard[0]
        slots.give(1)
        assert heard[3] != first


def test_a_lane_keeps_its_part_of_the_slots_while_others_have_work() -> None:
    """Alone it fills again whatever its runs leave."""
    slots = Slots(10)
    hungry = {"a": True, "b": False}
    for name in hungry:
        slots.share(lambda: None, functools.partial(hungry.__getitem__, name))

    assert slots.kept(leaving=4, staying=6) == 4
    hungry["b"] = True
    assert slots.kept(leaving=4, staying=6) == 0
    assert slots.kept(leaving=4, staying=3) == 2
    assert slots.kept(leaving=1, staying=0) == 1


async def test_no_more_runs_are_held_than_there_are_slots(memory_url: str) -> None:
    """Also where a run that leaves makes room in the same call."""
    running = most = 0
    app = Workflows()

    @app.workflow()
    async def flow(ctx: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(int(ctx.run_id.removeprefix("r")) % 5):
            await ctx.step(str, 1)
        running -= 1

    async with Client(memory_url) as client:
        runs = await client.enqueue_many([Enqueue("flow", id=f"r{n}") for n in range(100)])
        connection = Connection(memory_url)
        parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
        worker = await compose.compose(WorkerConfig(concurrency=7), app, parts)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            for run in runs:
                await run.result(60)
            worker.drain.set()
        await connection.aclose()

    assert most == 7


async def test_lanes_that_a_queue_has_no_more_are_left_when_they_are_empty(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs sweeps and renewals; and when they come back they are served again."""
    monkeypatch.setattr(lanes, "_FORMER_S", 0.02)
    app = Workflows()
    may_end = anyio.Event()

    @app.workflow()
    async def waits(ctx: Context) -> None:
        await may_end.wait()

    connection = Connection(memory_url)
    config = WorkerConfig(retention=0.001, lease=0.5)
    parts = compose.Parts(connection=connection, emit=lambda _: None, make_log=make_log)
    async with Client(memory_url) as client:
        await client.resize("default", lanes=LANES)
        held = next(name for name in map(str, range(100)) if ids.lane_of(name, LANES) == 2)
        worker = await compose.compose(config, app, parts)
        async with anyio.create_task_group() as group:
            group.start_soon(worker.serve)
            with anyio.fail_after(60):
                await client.enqueue("waits", id=held)
                await _until_served(worker, {0, 1, 2})
                await client.resize("default", lanes=1)
                # One is empty; in the other one a run goes on.
                await _until_served(worker, {0, 2})
                may_end.set()
                await _until_served(worker, {0})
                await client.resize("default", lanes=LANES)
                await _until_served(worker, {0, 1, 2})
                again = await client.enqueue("waits", id=held)
                while (await client.depth()).running + (await client.depth()).waiting:
                    await anyio.sleep(0.005)
                assert again.created
            worker.drain.set()
    await connection.aclose()


async def _until_served(worker: Worker, numbers: set[int]) -> None:
    while {lane.number for lane in worker.lanes} != numbers:
        await anyio.sleep(0.005)
