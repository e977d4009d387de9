"""Texts that are written together, token by token: who joins, who leaves, and that none is lost."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream.errors import DeadlineExceeded, InferenceFailed
from millstream.events import DeviceFailed, DeviceRanOut, SlotsAdvanced
from millstream.model.inference import Priority
from millstream_worker.inference.backends import Backend, BackendOptions
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from tests.inference.simulated import MIB, Bench, Simulated, all_of, bench
from tests.inference.test_batching import Gate
from tests.inference.writing import Pages, Writing

pytestmark = pytest.mark.anyio


def pages(total: int = 1024 * MIB, **facts: Any) -> Pages:
    return Pages(SimulatedDevice(total), **facts)


def model(**facts: Any) -> ModelSpec:
    return ModelSpec(name="m", backend="sim", **facts)


def written(name: str, most: int) -> list[dict[str, Any]]:
    return [{"name": name, "tokens": list(range(most))}]


def advances(b: Bench) -> list[SlotsAdvanced]:
    return [x for x in b.events if isinstance(x, SlotsAdvanced)]


async def test_a_text_that_ends_gives_its_slot_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One long text and three short ones in two slots: as long as the long one, and no longer."""
    world = pages()
    async with bench(world, model(batch_size=2), backend=Writing, monkeypatch=monkeypatch) as b:
        asked = [("long", 9), ("one", 3), ("two", 3), ("three", 3)]
        answers = await all_of(*(b.ask((5, name, most)) for name, most in asked))
        assert answers == [written(name, most) for name, most in asked]
        assert world.advances == [
            *[["long", "one"]] * 3, *[["long", "two"]] * 3, *[["long", "three"]] * 3,
        ]  # fmt: skip
        assert [x.slots for x in advances(b)] == [2] * 9
        assert sum(x.wrote for x in advances(b)) == 18
        assert sum(x.joined for x in advances(b)) == sum(x.ended for x in advances(b)) == 4


async def test_what_comes_later_joins_between_two_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    world = pages(before=gate)
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, (5, "first", 4))
            await gate.until_reached()
            # Other options are no reason to wait.
            group.start_soon(partial(b.ask, (5, "second", 2), backend={"mode": "other"}))
            await anyio.lowlevel.checkpoint()
            gate.go.set()
        assert world.advances == [["first"], *[["first", "second"]] * 2, ["first"]]


async def test_a_text_that_is_given_up_leaves_its_slot_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    world = pages(before=gate)
    async with bench(world, model(batch_size=1), backend=Writing, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as given_up:
                given_up.start_soon(b.ask, (5, "endless", 60_000))
                await gate.until_reached()
                group.start_soon(b.ask, (5, "next", 2))
                await anyio.lowlevel.checkpoint()
                given_up.cancel_scope.cancel()
            gate.go.set()
        assert world.advances == [["endless"], ["next"], ["next"]]
        assert world.left == ["endless"]


async def test_a_text_whose_time_is_up_is_not_written_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    world = pages(before=gate)
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, (5, "patient", 3))
            await gate.until_reached()
            with pytest.raises(DeadlineExceeded):
                await b.ask((5, "late", 3), timeout_s=0.02)
            gate.go.set()
        assert world.advances == [["patient"]] * 3


async def test_the_urgent_join_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    world = pages(before=gate)
    async with bench(world, model(batch_size=1), backend=Writing, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, (5, "first", 1))
            await gate.until_reached()
            for name, priority in (("low", "low"), ("normal", "normal"), ("high", "high")):
                group.start_soon(partial(b.ask, (5, name, 1), priority=Priority(priority)))
                await anyio.lowlevel.checkpoint()
            gate.go.set()
        assert world.advances == [["first"], ["high"], ["normal"], ["low"]]


async def test_who_listens_hears_the_text_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each input by its place in the call, an input that is asked twice for both."""
    heard: list[tuple[int, str]] = []
    async with bench(pages(), backend=Writing, monkeypatch=monkeypatch) as b:
        one, other = (5, "one", 2), (5, "other", 3)
        await b.ask(one, other, one, on_text=lambda place, text: heard.append((place, text)))
        await b.ask(one)
    said = {place: "".join(text for at, text in heard if at == place) for place in range(3)}
    assert said == {0: "0 1 ", 1: "0 1 2 ", 2: "0 1 "}


async def test_a_law_that_is_wrong_threefold_is_put_right_before_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts grow: what they take at the beginning says what they will take in the end."""
    truth = Bytes(fixed=1 * MIB, per_token=0.1 * MIB)
    world = pages(150 * MIB, truth=truth, wrong=3.0)
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask((20, f"{n}", 80)) for n in range(24)))
        assert answers == [written(f"{n}", 80) for n in range(24)]
        assert world.device.ran_out == 0
        assert world.device.highest <= 0.8 * 150 * MIB
        assert world.tokens == 24 * 80
        # Ten fit in their whole length, and eight remain when the first sixteen are through.
        assert world.tokens / len(world.advances) > 9


@pytest.mark.parametrize("at", [{0}, {40}, {1, 7, 20}])
async def test_running_out_of_memory_takes_slots_and_no_token(
    monkeypatch: pytest.MonkeyPatch, at: set[int]
) -> None:
    """Whenever it happens: fewer slots, and each text goes on where it was."""
    truth = Bytes(fixed=1 * MIB, per_token=0.1 * MIB)
    world = pages(235 * MIB, truth=truth, starve=set(at))
    async with bench(world, model(batch_size=16), backend=Writing, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask((20, f"{n}", 80)) for n in range(24)))
        assert answers == [written(f"{n}", 80) for n in range(24)]
        ran_out = [x for x in b.events if isinstance(x, DeviceRanOut)]
        assert len(ran_out) == len(at)
        assert world.tokens == 24 * 80
        assert len(world.advances[max(at)]) < 16
        # They had read their prompts, and what was written of them.
        assert bool([before for _, before in world.joined if before]) == (max(at) > 0)


async def test_a_text_that_fails_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and in the middle; whoever wrote beside it goes on where it was."""
    world = pages(stumbling={"at once": 0, "later": 3})
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:
        names = ["a", "at once", "b", "later", "c"]
        answers = await all_of(*(b.ask((5, name, 6)) for name in names))
        assert isinstance(answers[1], InferenceFailed)
        assert isinstance(answers[3], InferenceFailed)
        assert [answers[n] for n in (0, 2, 4)] == [written(name, 6) for name in "abc"]
        assert "cannot go on with later" in str(answers[3])
        assert world.tokens == 3 * 6 + 3


async def test_a_text_that_kills_the_device_twice_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = pages(dying={"deadly": 2})
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:
        names = ["a", "deadly", "b", "c"]
        answers = await all_of(*(b.ask((5, name, 6)) for name in names))
        assert isinstance(answers[1], InferenceFailed)
        assert "died of this input twice" in str(answers[1])
        assert [answers[n] for n in (0, 2, 3)] == [written(name, 6) for name in "abc"]
        assert any(isinstance(x, DeviceFailed) for x in b.events)
        # Those beside it lost their slots with the device, and not what was written.
        assert world.tokens == 3 * 6 + 2


async def test_a_neighbour_that_grows_takes_slots_and_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The least urgent wait until there is room again: the budget counts what others hold."""
    neighbour = [0]
    device = SimulatedDevice(200 * MIB, lambda: neighbour[0])
    world = Pages(device, truth=Bytes(fixed=1 * MIB, per_token=0.1 * MIB))
    async with bench(world, model(batch_size=8), backend=Writing, monkeypatch=monkeypatch) as b:

        def before(names: Any) -> None:
            # It grows after the fifth advance, and is read in between.
            if len(world.advances) == 5 and not neighbour[0]:
                neighbour[0] = 80 * MIB
                b.units.all[0].gauge.budget.read(device.read(), device.own())

        world.before = before
        answers = await all_of(*(b.ask((20, f"{n}", 80)) for n in range(8)))
        assert answers == [written(f"{n}", 80) for n in range(8)]
        assert world.device.ran_out == 0
        assert world.device.highest <= 0.8 * 200 * MIB
        assert world.tokens == 8 * 80
        assert sum(x.left for x in advances(b)) == len(world.left) > 0
        # The last to come are the first to go.
        assert world.left[0] == "7"


async def test_other_models_have_their_turn_between_two_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long text holds up nobody, and is not held up for ever."""
    world = pages()

    def either(given: BackendOptions, world: Pages) -> Backend:
        return Writing(given, world) if given.model == "m" else Simulated(given, world)

    order: list[str] = []
    world.before = lambda names: order.append("m" if "long" in names else "other")
    specs = model(), ModelSpec(name="other", backend="sim", batch_size=1)
    async with bench(world, *specs, backend=either, monkeypatch=monkeypatch) as b:
        calls = [b.ask((20, f"{n}"), model="other", run=f"{n}") for n in range(6)]
        await all_of(b.ask((5, "long", 40)), *calls)
        assert b.world.inputs == [(20, f"{n}") for n in range(6)]
    first = order.index("other")
    turns = order[first : first + 11]
    assert turns == ["other", "m"] * 5 + ["other"]


async def test_a_model_that_has_to_leave_goes_on_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its texts wait meanwhile, with what was written of them."""
    world = pages()
    async with bench(world, backend=Writing, monkeypatch=monkeypatch) as b:

        def before(names: Any) -> None:
            if len(world.advances) == 3:
                b.units.all[0].tenants._leaving = ["m"]

        world.before = before
        answers = await all_of(*(b.ask((5, name, 8)) for name in "ab"))
        assert answers == [written(name, 8) for name in "ab"]
        assert world.loads == ["m", "m"]
        assert world.tokens == 16
