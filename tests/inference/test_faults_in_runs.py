"""Faults of a device under real runs: only what is bad fails, and every step is recorded once."""

from __future__ import annotations

import threading
from collections import Counter
from random import Random
from typing import Any

import anyio
import anyio.to_thread
import pytest

from millstream import Context, RunState, Workflows
from millstream.errors import InferenceFailed
from millstream.events import DeviceRanOut, StepEnded
from millstream.testing import Harness
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from tests.inference.simulated import MIB, Bench, World, bench

pytestmark = pytest.mark.anyio

app = Workflows()
SPEC = ModelSpec(name="m", backend="sim", batch_size=8)


@app.workflow()
async def ask(ctx: Context, number: int) -> list[str]:
    """Ask for three answers, one after the other."""
    return [await ctx.infer("m", f"{number:03}.{step}") for step in range(3)]


@app.workflow()
async def careful(ctx: Context, number: int) -> str:
    """Ask once, and live with a failure."""
    try:
        return str(await ctx.infer("m", f"{number:03}"))
    except InferenceFailed as error:
        return error.cause


def recorded(harness: Harness) -> set[int]:
    """Return how often steps of inference were recorded."""
    steps = [x for x in harness.events if isinstance(x, StepEnded) and x.kind == "infer"]
    return set(Counter((x.run_id, x.key) for x in steps).values())


async def results(harness: Harness, workflow: str, count: int) -> list[Any]:
    runs = [await harness.client.enqueue(workflow, {"number": n}) for n in range(count)]
    return [await run.result(timeout=30) for run in runs]


async def test_of_a_hundred_runs_only_the_poisoned_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One input of a hundred is bad: whoever shared a batch with it never hears of that."""
    bad = {f"{Random(1).randrange(100):03}"}
    world = World(SimulatedDevice(1024 * MIB), poison=set(bad))
    async with (
        bench(world, SPEC, held=lambda: 100, monkeypatch=monkeypatch) as b,
        Harness(app, models=b.service) as harness,
    ):
        answers = await results(harness, "careful", 100)
        assert {f"{n:03}" for n, x in enumerate(answers) if x == "ValueError"} == bad
        assert recorded(harness) == {1}
    # And nothing was computed to an answer twice on the way to the bad one.
    assert set(Counter(world.inputs).values()) == {1}
    assert len(world.inputs) == 99


async def test_of_runs_that_wait_no_cancelled_one_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three of ten are cancelled while they wait: the device never sees them."""
    reached, go = threading.Event(), threading.Event()

    def before(payloads: Any) -> None:
        reached.set()
        assert go.wait(20)

    world = World(SimulatedDevice(1024 * MIB), before=before)
    given_up = set(Random(2).sample(range(1, 40), 12))
    async with (
        bench(world, SPEC, held=lambda: 40, monkeypatch=monkeypatch) as b,
        Harness(app, models=b.service) as harness,
    ):
        first = await harness.client.enqueue("careful", {"number": 0})
        await anyio.to_thread.run_sync(reached.wait, 20)
        runs = {n: await harness.client.enqueue("careful", {"number": n}) for n in range(1, 40)}
        await _until_waiting(b, 39)
        for number in given_up:
            await runs[number].cancel()
        for number in given_up:
            while (await runs[number].status()).state is not RunState.CANCELLED:
                await anyio.sleep(0.005)
        go.set()
        for number in sorted(set(runs) - given_up):
            assert await runs[number].result(timeout=30)
        assert await first.result(timeout=30)
        assert recorded(harness) == {1}
    assert {int(x) for x in world.inputs} == set(range(40)) - given_up


@pytest.mark.parametrize("place", range(3))
async def test_memory_that_runs_out_at_any_batch_of_the_runs_is_invisible(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Whichever batch it hits, of whatever step: every run has its answers, each recorded once."""
    world = World(SimulatedDevice(1024 * MIB), starve={place})
    async with (
        bench(world, SPEC, held=lambda: 12, monkeypatch=monkeypatch) as b,
        Harness(app, models=b.service) as harness,
    ):
        answers = await results(harness, "ask", 12)
        assert answers == [[f"{n:03}.{step}"[::-1] for step in range(3)] for n in range(12)]
        assert recorded(harness) == {1}
        assert sum(isinstance(x, DeviceRanOut) for x in b.events) == 1
    assert set(Counter(world.inputs).values()) == {1}


async def test_a_dead_context_under_runs_loses_none_of_their_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One input kills the device whenever it is computed: only its run fails, by name."""
    world = World(SimulatedDevice(1024 * MIB), deadly={"007"})
    async with (
        bench(world, SPEC, held=lambda: 16, monkeypatch=monkeypatch) as b,
        Harness(app, models=b.service) as harness,
    ):
        answers = await results(harness, "careful", 16)
        assert [n for n, x in enumerate(answers) if x != f"{n:03}"[::-1]] == [7]
        assert recorded(harness) == {1}
        assert b.batches


def ahead(b: Bench) -> int:
    """Return how many items have left the queue with the batch that is prepared."""
    batch = b.batcher._ahead.batch
    return len(batch.items) if batch is not None else 0


async def _until_waiting(b: Bench, count: int) -> None:
    """Return once so many wait in the queue, or in the batch that is ahead."""
    queue = b.units.queues["m"]
    while len(queue) + ahead(b) < count:
        await anyio.sleep(0.005)
