"""A batch that a device was given beforehand: begun by itself, or taken back, never both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream.errors import InferenceUnavailable
from millstream.events import BatchRan, DeviceFailed, Event, ModelLoaded
from millstream.model.inference import CallOptions
from millstream_worker.inference.budget import Own
from millstream_worker.inference.declared import ModelSpec, parse_models
from millstream_worker.inference.engine import EngineDied, Ran
from millstream_worker.inference.handing import (
    MOST_SENT,
    Claims,
    NotBegun,
    light,
    packed,
    unpacked,
)
from millstream_worker.inference.process import ProcessEngine
from millstream_worker.inference.service import InferenceService
from tests.inference.simulated import all_of
from tests.processes.effects import BEGUN, DONE, VARIABLE, Effects
from tests.processes.fleet import wait_until

BACKEND = "tests.inference.slow_backend:Recording"
_OTHER_SIDE = """
import sys
from millstream_worker.inference.handing import Claims
claims = Claims(int(sys.argv[1]), 24)
print("ready", flush=True)
sys.stdin.readline()
print(*[n for n in range(1, int(sys.argv[2]) + 1) if claims.take(n)], flush=True)
sys.stdin.readline()
"""


def test_of_two_processes_exactly_one_has_each_batch() -> None:
    """Both want every batch, at the same time."""
    count = 3000
    with tempfile.TemporaryFile() as file:
        claims = Claims(file.fileno(), 24)
        other = subprocess.Popen(
            [sys.executable, "-c", _OTHER_SIDE, str(file.fileno()), str(count)],
            pass_fds=[file.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            other.stdin.write("go\n")
            other.stdin.flush()
            ours = [n for n in range(1, count + 1) if claims.take(n)]
            theirs = [int(x) for x in other.stdout.readline().split()]
            other.stdin.close()
    # Whose lock was given up as too old may have been taken by both: only the latest count.
    assert all((n in ours) != (n in theirs) for n in range(count - MOST_SENT, count + 1))


@pytest.fixture
def effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Effects]:
    found = Effects(tmp_path / "effects")
    monkeypatch.setenv(VARIABLE, str(found.path))
    yield found
    found.close()


def _engine(**options: Any) -> ProcessEngine:
    spec = ModelSpec(name="m", backend=BACKEND, options={"pause": 0.2, **options})
    engine = ProcessEngine(lambda _: spec, hang_s=60)
    assert engine.load("m").fault is None
    return engine


@pytest.fixture
def engine(effects: Effects) -> Iterator[ProcessEngine]:
    del effects
    made = _engine()
    yield made
    made.close()


def begun(effects: Effects, run: str) -> int:
    return len([x for x in effects.all(BEGUN) if x.run == run])


def test_the_next_batch_begins_although_nobody_has_noticed_the_end_of_the_first(
    engine: ProcessEngine, effects: Effects
) -> None:
    first, second = engine.hand("m", ["a:0"], {}), engine.hand("m", ["b:0"], {})
    assert first is not None
    assert second is not None
    # Nobody has asked for the outcome of either.
    wait_until(lambda: len(effects.all(DONE)) == 2, 20, "both were computed")
    assert [x.run for x in effects.all(DONE)] == ["a", "b"]
    assert first.outcome().results == [f"a:0 by {engine.pid}"]
    assert not second.take_back()
    assert second.outcome().results == [f"b:0 by {engine.pid}"]


def test_what_was_taken_back_is_not_computed_and_stands_in_nobodys_way(
    engine: ProcessEngine, effects: Effects
) -> None:
    first, second = engine.hand("m", ["a:0"], {}), engine.hand("m", ["b:0"], {})
    assert first is not None
    assert second is not None
    wait_until(lambda: begun(effects, "a") == 1, 20, "the first began")
    assert second.take_back()
    # Its answer comes between these two, and nobody waits for it.
    third = engine.hand("m", ["c:0"], {})
    assert third is not None
    assert first.outcome().results == [f"a:0 by {engine.pid}"]
    assert third.outcome().results == [f"c:0 by {engine.pid}"]
    assert engine.run("m", ["d:0"], {}).results == [f"d:0 by {engine.pid}"]
    assert begun(effects, "b") == 0

    fourth, fifth = engine.hand("m", ["e:0"], {}), engine.hand("m", ["f:0"], {})
    assert fourth is not None
    assert fifth is not None
    assert fifth.take_back()
    fourth.outcome()
    with pytest.raises(NotBegun):
        fifth.outcome()


def test_however_often_a_better_batch_is_formed_only_the_last_is_computed(
    engine: ProcessEngine, effects: Effects
) -> None:
    """Those that were taken back lie unread while the first is computed, and are bounded."""
    first = engine.hand("m", ["a:0"], {})
    assert first is not None
    wait_until(lambda: begun(effects, "a") == 1, 20, "the first began")
    handed = [engine.hand("m", [f"b{n}:0"], {}) for n in range(20) if engine.occupied]
    for each in handed:
        assert each is None or each.take_back()
    assert sum(each is not None for each in handed) == MOST_SENT - 1
    assert engine.hand("m", ["c:0"], {}) is None
    assert first.outcome().results == [f"a:0 by {engine.pid}"]
    assert engine.run("m", ["c:0"], {}).results == [f"c:0 by {engine.pid}"]
    assert {x.run for x in effects.all(BEGUN)} == {"a", "c"}
    # All of them were read meanwhile: there is room again, and nothing is left behind.
    assert engine._answers == {}
    assert engine._sent == engine._left == set()
    last = engine.hand("m", ["d:0"], {})
    assert last is not None
    assert last.outcome().results == [f"d:0 by {engine.pid}"]


def test_what_the_dead_had_begun_cannot_be_taken_back(effects: Effects) -> None:
    """Its claim is void, and it may be what the process died of."""
    engine = _engine(pause=30)
    batch = engine.hand("m", ["a:0"], {})
    assert batch is not None
    wait_until(lambda: begun(effects, "a") == 1, 20, "it began")
    os.kill(engine.pid, signal.SIGKILL)
    engine._process.wait()
    assert not batch.take_back()
    with pytest.raises(EngineDied):
        batch.outcome()
    engine.close()


def test_a_batch_that_the_dead_had_not_begun_is_known_from_the_one_it_died_of(
    effects: Effects, tmp_path: Path
) -> None:
    (tmp_path / "marks").mkdir()
    engine = _engine(marks=str(tmp_path / "marks"))
    (tmp_path / "marks" / "now").touch()
    first, second = engine.hand("m", ["a:0"], {}), engine.hand("m", ["b:0"], {})
    assert first is not None
    assert second is not None
    with pytest.raises(EngineDied):
        first.outcome()
    with pytest.raises(NotBegun):
        second.outcome()
    # Nothing can be handed to it any more; who runs it hears why.
    assert engine.hand("m", ["c:0"], {}) is None
    with pytest.raises(NotBegun):
        engine.run("m", ["c:0"], {})
    with pytest.raises(EngineDied):
        engine.release()
    engine.close()
    assert begun(effects, "b") == 0


async def _asked(service: InferenceService, *names: str) -> list[Any]:
    return await all_of(*(service.infer("m", [f"{x}:0"], CallOptions(), run=x) for x in names))


def _served(events: list[Event], **options: Any) -> InferenceService:
    model = {"backend": BACKEND, "pause": 0.3, "batch_size": 2, **options}
    declared = parse_models({"isolation": "process", "models": {"m": model}})
    service = InferenceService(declared, emit=events.append)
    service.attend(lambda: 8)
    return service


@pytest.mark.anyio
async def test_who_gave_up_while_the_batch_was_ahead_is_not_computed(effects: Effects) -> None:
    answers: list[Any] = []

    async def ask(service: InferenceService, *names: str) -> None:
        answers.extend(await _asked(service, *names))

    async with _served([]) as service:
        await _asked(service, "warm")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(ask, service, "a", "b")
                while begun(effects, "a") == 0:
                    await anyio.sleep(0.005)
                scope = anyio.CancelScope()

                async def give_up() -> None:
                    with scope:
                        await ask(service, "given-up")

                group.start_soon(give_up)
                group.start_soon(ask, service, "kept")
                unit = service._models["m"]._serving[0]  # type: ignore[union-attr]
                while unit.batcher._ahead.batch is None:
                    await anyio.sleep(0.001)
                assert {x.payload for x in unit.batcher._ahead.batch.items} == {
                    "given-up:0",
                    "kept:0",
                }
                assert unit.batcher._ahead.batch.handed is not None
                scope.cancel()
    assert begun(effects, "given-up") == 0
    assert {x[0].partition(" ")[0] for x in answers} == {"a:0", "b:0", "kept:0"}


@pytest.mark.anyio
async def test_what_was_ahead_of_a_process_that_dies_is_computed_once(
    effects: Effects, tmp_path: Path
) -> None:
    """Only those that it died of are looked at one by one."""
    events: list[Event] = []
    (tmp_path / "marks").mkdir()
    async with _served(events, marks=str(tmp_path / "marks")) as service:
        await _asked(service, "warm")
        with anyio.fail_after(60):
            (tmp_path / "marks" / "now").touch()
            answers = await _asked(service, *"abcd")
    assert [x[0].partition(" ")[0] for x in answers] == ["a:0", "b:0", "c:0", "d:0"]
    assert len([x for x in events if isinstance(x, DeviceFailed)]) == 1
    assert [begun(effects, x) for x in "abcd"] == [2, 2, 1, 1]


@pytest.mark.anyio
async def test_a_process_that_died_while_it_had_nothing_to_do_is_told_and_replaced(
    effects: Effects,
) -> None:
    events: list[Event] = []
    async with _served(events) as service:
        ((answer,),) = await _asked(service, "warm")
        os.kill(int(answer.rpartition(" ")[2]), signal.SIGKILL)
        with anyio.fail_after(60):
            answers = await _asked(service, "a", "b")
    assert [x[0].partition(" ")[0] for x in answers] == ["a:0", "b:0"]
    assert len([x for x in events if isinstance(x, DeviceFailed)]) == 1
    # They are to blame for nothing: nobody had them computed one by one.
    assert [x.items for x in events if isinstance(x, BatchRan)][-1] == 2
    assert [begun(effects, x) for x in "ab"] == [1, 1]


@pytest.mark.anyio
async def test_a_backend_that_gives_no_sample_is_not_measured_and_serves(effects: Effects) -> None:
    """A mistake of its author's is no dead device."""
    events: list[Event] = []
    async with _served(events, sample="raises") as service:
        with anyio.fail_after(60):
            ((answer,),) = await _asked(service, "a")
    assert answer.startswith("a:0 by ")
    assert [x.model for x in events if isinstance(x, ModelLoaded)] == ["m"]
    assert not [x for x in events if isinstance(x, DeviceFailed)]


class Bomb:
    """It ends whoever reads it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def test_what_kills_the_process_as_it_is_read_is_to_blame(engine: ProcessEngine) -> None:
    """It never began, and would be sent again for ever if that made it innocent."""
    assert engine.hand("m", [Bomb()], {}) is None
    with pytest.raises(EngineDied, match="ended with 3"):
        engine.run("m", [Bomb()], {})


@pytest.mark.anyio
async def test_a_model_that_kills_the_device_as_it_is_measured_is_refused(
    effects: Effects,
) -> None:
    events: list[Event] = []
    async with _served(events, deadly="warm", sample="warm:0") as service:
        with anyio.fail_after(60):
            answers = await _asked(service, "a", "b")
            again = await _asked(service, "c")
    assert all(isinstance(x, InferenceUnavailable) for x in [*answers, *again])
    assert not [x for x in events if isinstance(x, ModelLoaded)]
    assert begun(effects, "a") == 0


@pytest.mark.anyio
async def test_what_is_ahead_of_a_worker_that_leaves_is_not_begun(effects: Effects) -> None:
    async with _served([], pause=1.0) as service:
        await _asked(service, "warm")
        async with anyio.create_task_group() as group:
            for names in ("ab", "cd"):
                group.start_soon(_asked, service, *names)
            while begun(effects, "a") == 0:
                await anyio.sleep(0.005)
            unit = service._models["m"]._serving[0]  # type: ignore[union-attr]
            while unit.batcher._ahead.batch is None:
                await anyio.sleep(0.001)
            unit.batcher.close()
            assert unit.batcher._ahead.batch is None
            group.cancel_scope.cancel()
    assert [begun(effects, x) for x in "cd"] == [0, 0]


def test_only_what_a_pipe_takes_at_once_is_handed_over() -> None:
    assert light([[1, 2], [3]])
    assert light(["some text", ""])
    assert light([[]])
    assert not light([[7] * 4096] * 4)
    assert not light([[[1, 2]]])
    assert not light([{"image": "x"}])
    assert not light([b"bytes"])


@pytest.mark.parametrize(
    "results",
    [
        [[0.25, -1.0], [1e300, 5e-324]],
        ["ä", None, True, 7, {"a": [1, {"b": None}]}],
        [2**80, 1],
        [ValueError("bad"), 1.0],
        [object],
    ],
)
def test_answers_come_out_as_they_went_in(results: list[Any]) -> None:
    ran = Ran(results=results, seconds=0.5, peak=3, own=Own(reserved=5, cached=2))
    found = unpacked(packed(ran))
    assert (found.seconds, found.peak, found.own) == (0.5, 3, Own(reserved=5, cached=2))
    assert repr(list(found.results)) == repr(results)
    failed = EngineDied("no")
    assert unpacked(packed(failed)) is failed
    assert unpacked(packed(Ran(seconds=1.0))) == Ran(seconds=1.0)
