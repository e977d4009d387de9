"""A device's process that hangs is killed and replaced; its items are computed all the same."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream.events import BatchRan, DeviceFailed, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference import child
from millstream_worker.inference.budget import Own
from millstream_worker.inference.declared import parse_models
from millstream_worker.inference.engine import NoMemory
from millstream_worker.inference.handing import Claims
from millstream_worker.inference.local import LocalModel
from millstream_worker.inference.process import ACCOUNT, BEAT, SHARED, ProcessEngine
from millstream_worker.inference.service import InferenceService
from millstream_worker.inference.watchdog import Vigil, patience_s
from tests.inference.simulated import all_of
from tests.processes.effects import BEGUN, VARIABLE, Effects
from tests.processes.fleet import _state

BACKEND = "tests.inference.slow_backend:Recording"
#: Short for a test, and long for a child that has to be scheduled on a busy machine.
HANG_S = 1.5


@asynccontextmanager
async def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncIterator[tuple[InferenceService, Effects, list[Event]]]:
    effects = Effects(tmp_path / "effects")
    monkeypatch.setenv(VARIABLE, str(effects.path))
    events: list[Event] = []
    model = {"backend": BACKEND, "pause": 0.01, **options}
    declared = parse_models(
        {"isolation": "process", "hang_timeout": HANG_S, "models": {"m": model}}
    )
    async with InferenceService(declared, emit=events.append) as service:
        service.attend(lambda: 6)
        yield service, effects, events
    effects.close()


async def asked(service: InferenceService, *names: str) -> list[Any]:
    calls = [service.infer("m", [f"{name}:0"], CallOptions(), run=name) for name in names]
    with anyio.fail_after(60):
        return [x[0].partition(" by ") for x in await all_of(*calls)]


def engine_of(service: InferenceService) -> ProcessEngine:
    model = service._models["m"]
    assert isinstance(model, LocalModel)
    engine = model._serving[0].tenants.engine
    assert isinstance(engine, ProcessEngine)
    return engine


@pytest.mark.anyio
async def test_a_process_that_is_stopped_is_killed_and_its_items_are_computed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A debugger, a frozen container, a driver in the kernel: it neither answers nor dies."""
    async with served(tmp_path, monkeypatch) as (service, _, events):
        ((_, _, first),) = await asked(service, "before")
        engine = engine_of(service)
        assert first == str(engine.pid)
        os.kill(engine.pid, signal.SIGSTOP)
        while _state(engine.pid) not in "Tt":
            await anyio.sleep(0.001)
        names = [f"r{n}" for n in range(6)]
        answers = await asked(service, *names)
        assert [x[0] for x in answers] == [f"{name}:0" for name in names]
        assert first not in {x[2] for x in answers}
        (failed,) = [x for x in events if isinstance(x, DeviceFailed)]
        assert "no sign of life" in failed.error
        # The dead one is gone, not left behind for the kernel to keep.
        assert _state(int(first)) == "Z"


@pytest.mark.anyio
async def test_a_batch_that_never_ends_is_given_up_although_the_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that never returns: the child's other thread lives, and only the clock can tell."""
    block = tmp_path / "block"
    async with served(tmp_path, monkeypatch, block=str(block)) as (service, effects, events):
        for n in range(4):
            await asked(service, f"warm{n}")
        block.touch()
        names = [f"r{n}" for n in range(3)]
        answers = await asked(service, *names)
        assert [x[0] for x in answers] == [f"{name}:0" for name in names]
        (failed,) = [x for x in events if isinstance(x, DeviceFailed)]
        assert "did not answer within" in failed.error
        assert max(sum(x.run == name for x in effects.all(BEGUN)) for name in names) == 2


@pytest.mark.anyio
async def test_a_model_that_loads_for_long_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may even hold the interpreter meanwhile, as large libraries do while they are imported."""
    async with served(tmp_path, monkeypatch, loading=1.5 * HANG_S) as (service, _, events):
        ((name, _, _),) = await asked(service, "r0")
        assert name == "r0:0"
        assert not [x for x in events if isinstance(x, DeviceFailed)]
        assert [x for x in events if isinstance(x, BatchRan)]


@pytest.mark.anyio
async def test_a_hang_is_found_while_nobody_asks_for_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first after a quiet night is not the one who has to find out."""
    monkeypatch.setattr("millstream_worker.inference.batcher.CANARY_S", 0.05)
    async with served(tmp_path, monkeypatch) as (service, _, events):
        await asked(service, "before")
        os.kill(engine_of(service).pid, signal.SIGSTOP)
        with anyio.fail_after(30):
            while not [x for x in events if isinstance(x, DeviceFailed)]:
                await anyio.sleep(0.01)
        ((name, _, _),) = await asked(service, "after")
        assert name == "after:0"
        assert any(isinstance(x, DeviceFailed) and "while idle" in x.error for x in events)


@pytest.mark.anyio
async def test_a_worker_that_leaves_takes_a_stopped_process_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream_worker.inference.process._END_S", 0.05)
    async with served(tmp_path, monkeypatch) as (service, _, _):
        await asked(service, "before")
        pid = engine_of(service).pid
        os.kill(pid, signal.SIGSTOP)
    assert _state(pid) == "Z"


def test_silence_counts_from_the_question_and_any_sign_of_life_ends_it() -> None:
    vigil = Vigil(asked=100.0, within_s=None, silence_s=10.0)
    beats = {104.0: 7, 108.0: 8, 112.0: 8, 116.0: 8, 117.9: 8}
    assert not any(vigil.look(now, beat) for now, beat in beats.items())
    assert "no sign of life for 10 s" in vigil.look(118.1, beat=8)


def test_a_counter_that_stood_before_the_question_is_no_sign_of_life() -> None:
    vigil = Vigil(asked=100.0, within_s=None, silence_s=10.0)
    assert not any(vigil.look(now, beat=7) for now in (104.0, 108.0, 109.9))
    assert vigil.look(110.1, beat=7) != ""


def test_a_lively_process_is_not_waited_for_without_end() -> None:
    vigil = Vigil(asked=0.0, within_s=30.0, silence_s=10.0)
    assert [t for t in range(1, 33) if vigil.look(float(t), beat=t)] == [31, 32]


def test_a_worker_that_was_stopped_itself_does_not_blame_its_device() -> None:
    """The answer has been there all along; nobody was awake to read it."""
    vigil = Vigil(asked=0.0, within_s=30.0, silence_s=10.0)
    assert vigil.look(1.0, beat=1) == ""
    assert vigil.look(3600.0, beat=2) == ""
    assert vigil.look(3601.0, beat=3) == ""


def test_what_takes_long_by_its_law_is_waited_for_longer() -> None:
    """Text of a thousand tokens is no hang; nor is the first batch of a model nobody knows."""
    quick, slow = (patience_s(60.0, x, learned=True) for x in (0.01, 100.0))
    assert quick < 61
    assert slow > 1000
    assert patience_s(60.0, 0.01, learned=False) > 500


def test_a_reading_that_fails_ends_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that shows that the process lives also reads its memory, while that changes."""

    class Changing(NoMemory):
        def own(self) -> Own:
            raise RuntimeError("the allocator is busy")

    account = mmap.mmap(-1, SHARED)
    process = child._Child(Connection(os.dup(0)), account, Claims(-1, SHARED), "")
    process._memory = Changing()
    beats: list[int] = []

    def pause(_: float) -> None:
        beats.append(BEAT.unpack_from(account, ACCOUNT.size)[0])
        if len(beats) == 3:
            raise SystemExit

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(SystemExit):
        process.write_for_ever()
    assert beats == [1, 2, 3]
