"""The budget beside a neighbour that moves, over minutes of a device: on virtual time."""

from __future__ import annotations

import pytest

from benchmarks.batching import budget
from benchmarks.batching.budget import PROBES, Neighbour


def _holds(minutes: float, seed: int) -> None:
    found = budget.measure(minutes, wrong=3.0, seed=seed)
    assert found["failed"] == 0
    # What the batcher admits, held against what the device knew at the reading.
    assert found["admitted_above"] == 0
    # And what was in use, held against the ceiling, except for what the neighbour took meanwhile.
    assert found["samples_above"] == 0
    assert found["last_failed_batch"] < PROBES or found["ran_out"] < found["batches"] / 50
    assert found["goodput_of_tuned"] >= 0.8


def test_the_budget_holds_for_a_minute_with_a_law_that_is_wrong_threefold() -> None:
    """No batch starts beyond it, nothing fails, and little is lost while the law is learned."""
    _holds(1.0, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_the_budget_holds_for_ten_minutes(seed: int) -> None:
    _holds(10.0, seed)


def test_a_budget_that_is_broken_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates look at the device, not at what the batcher believes: a neighbour it ignores."""
    monkeypatch.setattr("millstream_worker.inference.budget.Budget.others", 0)
    played = budget.play(20.0, 1.0, seed=1)
    assert budget.admitted_above(played)
    assert budget.above(played)


def test_a_neighbour_is_a_line_between_its_points() -> None:
    script = Neighbour(points=[(0.0, 10), (10.0, 20), (11.0, 40)])
    assert [script(at) for at in (0.0, 5.0, 10.5, 99.0)] == [10, 15, 30, 40]
