"""Several models on a device that holds one, and neighbours that take and give."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from millstream.errors import (
    DeadlineExceeded,
    InferenceRejected,
    InferenceUnavailable,
    ItemTooLarge,
)
from millstream.events import ModelEvicted, ModelLoaded
from millstream_worker.inference import gauge, queues
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from millstream_worker.inference.residency import Resident, evictions
from tests.inference.simulated import MIB, World, all_of, bench


def resident(model: str, size: int, **facts: Any) -> Resident:
    given: dict[str, Any] = {"reload_s": 1.0, "since": 0.0, "used": 0.0, "batches": 100, **facts}
    return Resident(model=model, bytes=size, **given)


def test_what_is_cheapest_to_be_without_leaves() -> None:
    slow = resident("slow to load", 10, reload_s=60.0)
    quick = resident("quick to load", 10, reload_s=0.5)
    assert evictions([slow, quick], 5, now=100.0) == [quick]


def test_what_is_asked_for_more_stays() -> None:
    busy = resident("busy", 10, batches=1000, used=100.0)
    idle = resident("idle", 10, batches=3, used=1.0)
    assert evictions([busy, idle], 5, now=100.0) == [idle]


def test_what_has_work_leaves_last_and_only_once_it_is_settled() -> None:
    fresh = resident("fresh", 10, since=99.0, batches=2)
    assert evictions([fresh], 5, now=100.0, busy=["fresh"]) is None
    settled = resident("settled", 10, since=0.0)
    idle = resident("idle", 4)
    assert evictions([settled, idle], 5, now=100.0, busy=["settled"]) == [idle, settled]


def test_nobody_leaves_where_it_would_not_help() -> None:
    assert evictions([resident("small", 4)], 5, now=100.0) is None


TWO = (
    ModelSpec(name="a", backend="sim", options={"weights": 50 * MIB}),
    ModelSpec(name="b", backend="sim", options={"weights": 50 * MIB}),
)


@pytest.mark.anyio
async def test_an_idle_model_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(SimulatedDevice(100 * MIB))
    async with bench(world, *TWO, monkeypatch=monkeypatch) as b:
        with anyio.fail_after(20):
            assert await b.ask("one", model="a") == ["eno"]
            assert await b.ask("two", model="b") == ["owt"]
            assert await b.ask("three", model="a") == ["eerht"]
        loaded = [x.model for x in b.events if isinstance(x, ModelLoaded)]
        evicted = [x.model for x in b.events if isinstance(x, ModelEvicted)]
    assert loaded == ["a", "b", "a"]
    assert evicted == ["a", "b"]
    # The two were never there at once, and nothing went above the budget.
    assert world.device.highest <= 80 * MIB
    assert world.device.ran_out == 0


@pytest.mark.anyio
async def test_models_that_both_have_work_do_not_drive_each_other_out_at_every_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(SimulatedDevice(100 * MIB))
    async with bench(world, *TWO, monkeypatch=monkeypatch) as b:
        with anyio.fail_after(30):
            calls = [b.ask(f"{n}", model="ab"[n % 2], run=f"{n}") for n in range(120)]
            answers = await all_of(*calls)
        assert not [x for x in answers if isinstance(x, Exception)]
        assert len(world.loads) <= 4


@pytest.mark.anyio
async def test_a_model_that_can_never_fit_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = ModelSpec(name="m", backend="sim", options={"weights": 90 * MIB})
    async with bench(World(SimulatedDevice(100 * MIB)), spec, monkeypatch=monkeypatch) as b:
        with pytest.raises(InferenceRejected, match="needs 94,371,840 bytes"), anyio.fail_after(20):
            await b.ask("x")


@pytest.mark.anyio
async def test_nothing_starts_while_a_neighbour_has_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits, and goes on when the neighbour has given it back: within the budget throughout."""
    monkeypatch.setattr(gauge, "BUSY_S", 0.005)
    neighbour = 60 * MIB
    world = World(SimulatedDevice(100 * MIB, lambda: neighbour), weights=20 * MIB)
    async with bench(world, monkeypatch=monkeypatch) as b:
        with pytest.raises(DeadlineExceeded):
            await b.ask((500, "x"), timeout_s=0.1)
        assert world.computed == []
        neighbour = 10 * MIB
        with anyio.fail_after(20):
            await b.ask((500, "y"))
    assert world.device.highest <= 80 * MIB


class Greedy(SimulatedDevice):
    """Takes more than anybody was told of, as far as its limit lets it."""

    asked = 0

    def compute(self, size: int) -> None:
        self.asked += 1
        super().compute(40 * MIB)


@pytest.mark.anyio
async def test_what_does_not_fit_beside_a_neighbour_waits_until_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A law that is wrong must not fail an input whose only fault is the company."""
    monkeypatch.setattr(gauge, "BUSY_S", 0.002)
    neighbour = 40 * MIB
    device = Greedy(100 * MIB, lambda: neighbour)
    async with bench(World(device, weights=10 * MIB), monkeypatch=monkeypatch) as b:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await b.ask("big"))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                while not device.asked or not len(b.units.queues["m"]):
                    await anyio.sleep(0.002)
                asked = device.asked
                for _ in range(5):
                    await b.units.all[0].gauge.read()
                # It is not tried again and again in vain.
                assert device.asked == asked
                neighbour = 0
    assert answers == [["gib"]]
    assert device.highest <= 80 * MIB


@pytest.mark.anyio
async def test_what_finds_no_room_beside_a_neighbour_that_stays_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be tried later, or elsewhere: nothing waits for ever."""
    monkeypatch.setattr(gauge, "BUSY_S", 0.002)
    monkeypatch.setattr(queues, "STARVE_S", 0.02)
    device = Greedy(100 * MIB, lambda: 40 * MIB)
    async with bench(World(device, weights=10 * MIB), monkeypatch=monkeypatch) as b:
        with (
            pytest.raises(InferenceUnavailable, match="found no room beside"),
            anyio.fail_after(20),
        ):
            await b.ask("big")


@pytest.mark.anyio
async def test_what_is_too_large_for_a_share_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without neighbours there is nothing to wait for, however small our part is."""
    device = Greedy(100 * MIB)
    world = World(device, weights=10 * MIB)
    async with bench(world, fraction=0.45, monkeypatch=monkeypatch) as b:
        with pytest.raises(ItemTooLarge, match="ran out of memory alone"), anyio.fail_after(20):
            await b.ask("big")


@pytest.mark.anyio
async def test_batches_shrink_at_once_when_a_neighbour_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gauge, "BUSY_S", 0.002)
    neighbour = 0
    world = World(SimulatedDevice(100 * MIB, lambda: neighbour), weights=10 * MIB)
    async with bench(world, held=lambda: 64, monkeypatch=monkeypatch) as b:
        inputs = [(400, str(n)) for n in range(64)]
        await all_of(*(b.ask(x, run=x[1]) for x in inputs))
        before = max(x.items for x in b.batches)
        neighbour = 55 * MIB
        await b.units.all[0].gauge.read()
        done = len(b.batches)
        with anyio.fail_after(20):
            await all_of(*(b.ask(x, run=x[1]) for x in inputs))
        after = max(x.items for x in b.batches[done:])
    assert before == 32
    assert after < 16
    assert world.device.ran_out == 0
    assert world.device.highest <= 80 * MIB
