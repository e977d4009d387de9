"""Several lanes share the slots of a worker: none of them waits for another one to be empty."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream import Client, Context, Enqueue, Workflows
from millstream.events import Event, RunSettled
from millstream.model import ids
from millstream.store.connection import Connection
from millstream_worker import compose
from millstream_worker.config import WorkerConfig
from millstream_worker.embedded import SilentLog
from millstream_worker.slots import Slots

pytestmark = pytest.mark.anyio

LANES = 3
RUNS = 120


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

    def make_log(*args: Any, **options: Any) -> SilentLog:
        return SilentLog()

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
        slots.share(lambda name=name: heard.append(name))  # type: ignore[misc]

    for _ in range(3):
        heard.clear()
        slots.give(1)
        assert sorted(heard) == ["a", "b", "c"]
        first = heard[0]
        slots.give(1)
        assert heard[3] != first
