"""Workers and device processes that are killed while they compute: nothing recorded is repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from millstream import Enqueue, SyncClient
from millstream.errors import InferenceFailed
from millstream.events import DeviceFailed, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference.declared import Declared, parse_models
from millstream_worker.inference.service import InferenceService
from tests.inference.simulated import all_of
from tests.processes.effects import BEGUN, VARIABLE, Effects
from tests.processes.fleet import Fleet, wait_until
from tests.servers import RedisServer

BACKEND = "tests.inference.slow_backend:Recording"
STEPS, RUNS = 6, 8


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Fleet, SyncClient]]:
    file = tmp_path / "models.toml"
    file.write_text(f'[models.m]\nbackend = "{BACKEND}"\n', "utf-8")
    with (
        RedisServer(appendonly=True) as server,
        Fleet(tmp_path, server.url, lease=1.0, models=str(file)) as fleet,
        SyncClient(server.url, patience=30) as client,
    ):
        yield fleet, client


def test_a_worker_that_is_killed_computes_no_recorded_answer_again(
    fleet: tuple[Fleet, SyncClient],
) -> None:
    """It dies in the middle of batches; the runs go on elsewhere, after their last answer."""
    workers, client = fleet
    (first,) = workers.start()
    runs = client.enqueue_many([Enqueue("infer_chain", {"steps": STEPS}) for _ in range(RUNS)])
    wait_until(lambda: len(workers.effects.all(BEGUN)) >= 3 * RUNS, 20, "it got on")
    first.kill()
    workers.start()
    for run in runs:
        answers = run.result(timeout=30)
        assert [x.partition(" by ")[0] for x in answers] == [f"{run.id}:{n}" for n in range(STEPS)]
        # The answers of the dead worker are kept as it gave them.
        assert answers[0].endswith(f" by {first.pid}")
    # Only what was under way when it died was computed twice.
    assert workers.effects.after_their_record() == []
    assert workers.effects.repeated() <= RUNS


def test_a_device_process_that_dies_under_runs_costs_no_recorded_step(tmp_path: Path) -> None:
    """The worker lives on and starts another; its runs go on after their last answer."""
    marks = tmp_path / "marks"
    marks.mkdir()
    file = tmp_path / "models.toml"
    file.write_text(
        f'isolation = "process"\n[models.m]\nbackend = "{BACKEND}"\nmarks = "{marks}"\n', "utf-8"
    )
    with (
        RedisServer() as server,
        Fleet(tmp_path, server.url, models=str(file)) as fleet,
        SyncClient(server.url, patience=30) as client,
    ):
        (worker,) = fleet.start()
        runs = client.enqueue_many([Enqueue("infer_chain", {"steps": STEPS}) for _ in range(RUNS)])
        wait_until(lambda: len(fleet.effects.all(BEGUN)) >= 2 * RUNS, 20, "it got on")
        (marks / "now").touch()
        for run in runs:
            answers = run.result(timeout=30)
            assert [x.partition(" by ")[0] for x in answers] == [
                f"{run.id}:{n}" for n in range(STEPS)
            ]
        assert worker.alive
        assert fleet.effects.after_their_record() == []
        # Only what was under way when it died was computed twice.
        assert 0 < fleet.effects.repeated() <= RUNS
        assert len([x for x in worker.events if x["event"] == "device_failed"]) == 1
        ended = Counter(
            (x["run_id"], x["key"]) for x in worker.events if x["event"] == "step_ended"
        )
        assert set(ended.values()) == {1}


def _declared(effects: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Declared:
    monkeypatch.setenv(VARIABLE, str(effects))
    model = {"backend": BACKEND, "pause": 0.01, **options}
    return parse_models({"isolation": "process", "models": {"m": model}})


@pytest.mark.anyio
async def test_a_device_process_that_is_killed_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a batch: every input is answered all the same."""
    marks = tmp_path / "marks"
    marks.mkdir()
    (marks / "one").touch()
    effects = Effects(tmp_path / "effects")
    declared = _declared(effects.path, monkeypatch, marks=str(marks))
    events: list[Event] = []
    async with InferenceService(declared, emit=events.append) as service:
        service.attend(lambda: 10)
        asked = [service.infer("m", [f"r{n}:0"], CallOptions(), run=f"r{n}") for n in range(10)]
        with anyio.fail_after(60):
            answers = await all_of(*asked)
    assert [x[0].partition(" by ")[0] for x in answers] == [f"r{n}:0" for n in range(10)]
    assert len([x for x in events if isinstance(x, DeviceFailed)]) == 1
    assert len({x[0].partition(" by ")[2] for x in answers}) == 1
    assert Counter(x.run for x in effects.all(BEGUN)) == {f"r{n}": 2 for n in range(10)}
    effects.close()


@pytest.mark.anyio
async def test_an_input_that_kills_the_process_twice_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = Effects(tmp_path / "effects")
    declared = _declared(effects.path, monkeypatch, deadly="bad")
    async with InferenceService(declared, emit=lambda _: None) as service:
        service.attend(lambda: 4)
        names = ["r0:0", "bad:0", "r1:0", "r2:0"]
        asked = [service.infer("m", [name], CallOptions(), run=name) for name in names]
        with anyio.fail_after(60):
            answers = await all_of(*asked)
    assert isinstance(answers[1], InferenceFailed)
    assert all(isinstance(answers[n], list) for n in (0, 2, 3))
    assert len(effects.all(BEGUN, "bad")) == 2
    effects.close()
