"""What the batcher of a device promises, on a simulated device and a real event loop."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from millstream.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InferenceOverloaded,
    InferenceRejected,
    ItemTooLarge,
)
from millstream.events import DeviceFailed, DeviceRanOut, InferenceEnded
from millstream.model.inference import Priority
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.local import LocalModel
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from tests.inference.simulated import MIB, World, all_of, bench

pytestmark = pytest.mark.anyio


def world(total: int = 1024 * MIB, **facts: Any) -> World:
    return World(SimulatedDevice(total), **facts)


class Gate:
    """Holds the device at a batch until it is told to go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, payloads: Any) -> None:
        self.reached.set()
        assert self.go.wait(20)

    async def until_reached(self) -> None:
        await anyio.to_thread.run_sync(self.reached.wait, 20)


async def test_each_input_gets_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(world(), monkeypatch=monkeypatch) as b:
        assert await b.ask("abc", "de", "f") == ["cba", "ed", "f"]


async def test_calls_of_many_runs_become_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them wait here, so nobody else can join: it leaves at once, and whole."""
    async with bench(world(), held=lambda: 20, monkeypatch=monkeypatch) as b:
        await all_of(*(b.ask(f"input {n:02}", run=str(n)) for n in range(20)))
        assert [x.items for x in b.batches] == [20]
        assert b.batches[0].reason == "quiescent"


async def test_callers_that_ask_again_and_again_stay_in_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that were just answered are the likeliest to join: the others wait for them."""
    async with bench(world(), held=lambda: 8, monkeypatch=monkeypatch) as b:

        async def caller(number: int) -> None:
            for turn in range(10):
                await b.ask(f"{number} {turn}", run=str(number))

        await all_of(*(caller(n) for n in range(8)))
        # The first may leave before all are there.
        assert [x.items for x in b.batches][1:-1] == [8] * (len(b.batches) - 2)


async def test_a_batch_is_formed_when_the_device_is_free_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What comes while a batch runs leaves together with what came before it."""
    gate = Gate()
    async with bench(world(before=gate), monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            for n in range(5):
                group.start_soon(b.ask, f"later {n}")
                await anyio.lowlevel.checkpoint()
            gate.go.set()
        assert [len(x) for x in b.world.computed] == [1, 5]


async def test_no_batch_is_larger_than_its_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(name="m", backend="sim", batch_size=8, max_tokens=512)
    async with bench(world(), spec, monkeypatch=monkeypatch) as b:
        await b.ask(*((20 + n, n) for n in range(40)))
        await b.ask(*((200 + n, n) for n in range(10)))
        assert max(x.items for x in b.batches) == 8
        assert max(x.computed for x in b.batches if x.items > 1) <= 512


async def test_identical_inputs_under_way_are_computed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(world(), held=lambda: 4, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask("same", run=str(n)) for n in range(4)))
        assert answers == [["emas"]] * 4
        assert b.world.inputs == ["same"]
        await all_of(*(b.ask("again", run=str(n), dedupe=False) for n in range(4)))
        assert b.world.inputs == ["same", *["again"] * 4]


async def test_one_who_gives_up_does_not_take_the_answer_from_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    async with bench(world(before=gate), monkeypatch=monkeypatch) as b:
        answers: list[Any] = []

        async def stay() -> None:
            answers.append(await b.ask("shared"))

        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            group.start_soon(stay)
            with anyio.move_on_after(0.01):
                await b.ask("shared")
            gate.go.set()
        assert answers == [["derahs"]]


async def test_what_was_cancelled_while_it_waited_is_never_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    async with bench(world(before=gate), monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            async with anyio.create_task_group() as given_up:
                for n in range(40):
                    given_up.start_soon(b.ask, f"given up {n}")
                await anyio.lowlevel.checkpoint()
                for n in range(3):
                    group.start_soon(b.ask, f"kept {n}")
                await anyio.sleep(0.01)
                given_up.cancel_scope.cancel()
            gate.go.set()
        assert sorted(b.world.inputs) == ["first", "kept 0", "kept 1", "kept 2"]
        outcomes = Counter(x.outcome for x in b.events if isinstance(x, InferenceEnded))
        assert outcomes == {"ok": 4, "cancelled": 40}
        # Nor is it remembered as under way, for those who might ask for the same.
        model = b.service._models["m"]
        assert isinstance(model, LocalModel)
        assert model._intake is not None
        assert model._intake._under_way == {}


async def test_what_came_too_late_fails_and_is_never_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    async with bench(world(before=gate), monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.02 s"):
                await b.ask("late", timeout_s=0.02)
            gate.go.set()
        assert b.world.inputs == ["first"]


async def test_the_urgent_leave_first(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    spec = ModelSpec(name="m", backend="sim", batch_size=1)
    async with bench(world(before=gate), spec, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            for name, priority in (("low", "low"), ("normal", "normal"), ("high", "high")):
                group.start_soon(partial(b.ask, name, priority=Priority(priority)))
                await anyio.lowlevel.checkpoint()
            # A turn of the batcher, in which it sees who has come.
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            gate.go.set()
        # One may have been prepared already when the more urgent ones came: it is taken back.
        assert b.world.inputs == ["first", "high", "normal", "low"]


async def test_calls_with_other_options_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(world(), held=lambda: 4, monkeypatch=monkeypatch) as b:
        calls = [b.ask(f"{n}", run=str(n), backend={"mode": f"{n % 2}"}) for n in range(4)]
        await all_of(*calls)
        assert sorted(map(sorted, b.world.computed)) == [["0", "2"], ["1", "3"]]


async def test_an_unknown_option_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(world(), monkeypatch=monkeypatch) as b:
        with pytest.raises(InferenceRejected, match="takes no option 'temprature'"):
            await b.ask("x", backend={"temprature": 1})


async def test_a_full_queue_refuses_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    spec = ModelSpec(name="m", backend="sim", queue=3)
    async with bench(world(before=gate), spec, monkeypatch=monkeypatch) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(b.ask, "first")
            await gate.until_reached()
            group.start_soon(b.ask, "a", "b", "c")
            await anyio.lowlevel.checkpoint()
            with pytest.raises(InferenceOverloaded, match="3 inputs wait"):
                await b.ask("d")
            gate.go.set()
        assert len(b.world.inputs) == 4


async def test_an_input_that_no_device_has_room_for_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would wait for ever otherwise, and be the head of the queue meanwhile."""
    async with bench(world(100 * MIB), monkeypatch=monkeypatch) as b:
        with pytest.raises(ItemTooLarge, match="no device here has the memory"):
            await b.ask((60_000, "huge"))
        assert await b.ask("small") == ["llams"]


async def test_what_is_no_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(world(), monkeypatch=monkeypatch) as b:
        with pytest.raises(InferenceRejected, match="that is none"):
            await b.ask("no input")


@pytest.mark.parametrize("place", [0, 1, 7, 15, 31])
async def test_one_bad_input_fails_alone(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Whatever its place: found by halving, while the others get their answers."""
    inputs = [f"{n:02}" for n in range(32)]
    async with bench(world(poison={inputs[place]}), held=lambda: 32, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask(x, run=x) for x in inputs))
        failed = [i for i, x in enumerate(answers) if isinstance(x, InferenceFailed)]
        assert failed == [place]
        assert "ValueError: cannot compute" in str(answers[place])
        assert len(b.batches) <= 1 + 2 * 5
        assert await b.ask("after") == ["retfa"]


async def test_a_model_that_always_fails_is_not_halved_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = [f"{n:03}" for n in range(32)]
    async with bench(world(poison=set(inputs)), held=lambda: 32, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask(x, run=x) for x in inputs))
        assert all(isinstance(x, InferenceFailed) for x in answers)
        assert len(b.batches) < 32


@pytest.mark.parametrize("place", range(8))
async def test_running_out_of_memory_at_any_batch_is_invisible(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Whichever batch it hits, no input fails, and each is computed to one answer."""
    inputs = [(8 + 4 * n, str(n)) for n in range(64)]
    spec = ModelSpec(name="m", backend="sim", batch_size=8)
    async with bench(world(starve={place}), spec, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask(x) for x in inputs))
        assert answers == [[str(x)[::-1]] for x in inputs]
        assert sorted(b.world.inputs) == sorted(inputs)
        ran_out = [x for x in b.events if isinstance(x, DeviceRanOut)]
        assert len(ran_out) == 1


async def test_a_device_that_refuses_for_reasons_of_its_own_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory seems to run out again and again at tiny batches: no prediction may block for ever."""
    w = world(starve=set(range(0, 40, 2)))
    spec = ModelSpec(name="m", backend="sim", batch_size=8)
    async with bench(w, spec, monkeypatch=monkeypatch) as b:
        with anyio.fail_after(30):
            answers = await all_of(*(b.ask((8 + n, str(n))) for n in range(120)))
        assert not [x for x in answers if isinstance(x, Exception)]


async def test_a_guess_that_is_wrong_threefold_is_invisible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device runs out where the guess said it would not; soon nothing is refused any more."""
    inputs = [(64 + (n * 37) % 400, str(n)) for n in range(300)]
    w = world(64 * MIB, wrong=3.0)
    async with bench(w, held=lambda: 300, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask(x, run=x[1]) for x in inputs))
        assert not [x for x in answers if isinstance(x, Exception)]
        assert sorted(w.inputs) == sorted(inputs)
        late = [x for x in b.batches[20:] if x.fault]
        assert not late
        assert w.device.highest <= 0.8 * w.device.total or w.device.ran_out


async def test_an_input_that_runs_out_of_memory_alone_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others of its batch never see an error."""
    w = world(64 * MIB)

    def before(payloads: Any) -> None:
        if any(x == (2000, "hungry") for x in payloads):
            raise MemoryError("CUDA out of memory")

    w.before = before
    async with bench(w, held=lambda: 9, monkeypatch=monkeypatch) as b:
        calls = [b.ask((2000, "hungry"), run="h"), *(b.ask((9, n), run=str(n)) for n in range(8))]
        answers = await all_of(*calls)
        assert isinstance(answers[0], ItemTooLarge)
        assert not [x for x in answers[1:] if isinstance(x, Exception)]


async def test_an_input_that_kills_the_device_twice_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w = world(deadly={"deadly"})
    async with bench(w, held=lambda: 10, monkeypatch=monkeypatch) as b:
        names = ["deadly", *(f"blameless {n}" for n in range(9))]
        answers = await all_of(*(b.ask(x, run=x) for x in names))
        assert isinstance(answers[0], InferenceFailed)
        assert "died of this input twice" in str(answers[0])
        assert answers[1:] == [[x[::-1]] for x in names[1:]]
        assert len([x for x in b.events if isinstance(x, DeviceFailed)]) == 2
        # Each time the model is brought to the new context.
        assert w.loads == ["m"] * 3


async def test_a_result_too_few_is_an_error_and_not_a_shift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers that slide by one would go to the wrong runs, and be journaled there."""
    from tests.inference import simulated

    run = simulated.Simulated.run
    monkeypatch.setattr(
        simulated.Simulated, "run", lambda self, p, o: list(run(self, p, o))[: len(p) - ("x" in p)]
    )
    async with bench(world(), held=lambda: 3, monkeypatch=monkeypatch) as b:
        answers = await all_of(*(b.ask(x, run=x) for x in ("x", "yy", "zz")))
        assert isinstance(answers[0], InferenceFailed)
        assert "0 results for 1 items" in str(answers[0])
        assert answers[1:] == [["yy"], ["zz"]]


async def test_leaving_while_batches_run_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch under way and one ahead of it: the worker goes, and what waits is given up."""
    gate = Gate()
    spec = ModelSpec(name="m", backend="sim", batch_size=2)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            async with bench(world(before=gate), spec, monkeypatch=monkeypatch) as b:
                for n in range(9):
                    group.start_soon(b.ask, f"{n}")
                await gate.until_reached()
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                assert b.units.all[0].tenants._runner.under_way == 2
                gate.go.set()
            group.cancel_scope.cancel()


async def test_a_device_that_cannot_be_read_any_more_starts_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was read last is too old; when it can be read again, it goes on."""
    monkeypatch.setattr("millstream_worker.inference.gauge.BUSY_S", 0.001)
    monkeypatch.setattr("millstream_worker.inference.gauge.IDLE_S", 0.001)
    w = world()
    broken = False
    read = w.device.read

    def reading() -> Any:
        if broken:
            raise OSError("the driver is gone")
        return read()

    monkeypatch.setattr(w.device, "read", reading)
    async with bench(w, monkeypatch=monkeypatch) as b:
        await b.ask("before")
        gauge = b.units.all[0].gauge
        with anyio.fail_after(20):
            broken = True
            while gauge.headroom:
                await anyio.sleep(0.001)
            done = len(w.computed)
            with pytest.raises(DeadlineExceeded):
                await b.ask("blind", timeout_s=0.05)
            assert len(w.computed) == done
            broken = False
            assert await b.ask("after") == ["retfa"]


async def test_a_mistake_of_the_batcher_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(world(), monkeypatch=monkeypatch) as b:

        def mistaken(*_: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr("millstream_worker.inference.grouping.choose", mistaken)
            with pytest.raises(InferenceFailed, match="ZeroDivisionError"), anyio.fail_after(10):
                await b.ask("a", "bb")
        assert await b.ask("after") == ["retfa"]


async def test_several_devices_pull_from_one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is held up holds up nothing but its own batch."""
    gate = Gate()
    spec = ModelSpec(name="m", backend="sim", batch_size=4)
    w = world()
    held: list[Any] = []

    def before(payloads: Any) -> None:
        if not held:
            held.extend(payloads)
            gate(payloads)

    w.before = before
    async with bench(w, spec, devices=3, monkeypatch=monkeypatch) as b:
        answers: list[Any] = []

        async def one(n: int) -> None:
            answers.extend(await b.ask(f"{n:02}"))

        async with anyio.create_task_group() as group:
            group.start_soon(one, 0)
            await gate.until_reached()
            async with anyio.create_task_group() as others:
                for n in range(1, 30):
                    others.start_soon(one, n)
            assert len(answers) == 29
            gate.go.set()
        assert len(answers) == 30
        assert len({x.device for x in b.batches}) >= 2
