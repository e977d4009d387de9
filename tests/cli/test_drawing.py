"""What is drawn, without a Redis: values in, lines out."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from millstream.cli import timeline
from millstream.cli.access import clock, span, waits_for
from millstream.cli.output import Listing, Row, clean, plain_table, rich_table
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.run import RunState, RunStatus, Times


def test_bars_stand_where_their_steps_were() -> None:
    """Half of the time is half of the width, and what was quick is still seen."""
    story = _story(
        {
            "first#0": _record(began=100.0, took_s=5.0),
            "instant#0": _record(began=105.0, took_s=0.0),
            "second#0": _record(began=105.0, took_s=5.0),
        }
    )

    bars = timeline.bars_of(story)

    assert [bar.drawn(10, "=") for bar in bars] == ["=====", "     =", "     ====="]


def test_a_step_that_outlived_its_run_stays_inside_the_picture() -> None:
    """A sleep that was set and never rang must not stretch the axis."""
    story = _story(
        {"nap#0": _record(StepKind.SLEEP, RecordStatus.WAITING, began=109.0, took_s=3600.0)}
    )

    (bar,) = timeline.bars_of(story)

    assert len(bar.drawn(10, "=")) <= 10
    assert "ok" in bar.cells


def test_very_many_steps_are_counted() -> None:
    """A journal of ten thousand records does not scroll for a minute."""
    journal = {f"s#{n:04}": _record(began=100.0) for n in range(timeline.MOST_STEPS + 7)}

    lines = list(timeline.plain(_story(journal)))

    assert lines[-1] == "and 7 more steps; --json has them all"
    assert len(timeline.bars_of(_story(journal))) == timeline.MOST_STEPS
    assert len(_story(journal).document()["steps"]) == timeline.MOST_STEPS + 7


def test_a_run_without_steps_is_shown_too() -> None:
    """It may be waiting, or have failed before its first step."""
    waiting = RunStatus(
        id="r", state=RunState.QUEUED, attempt=1, workflow="w", version=None, error=None,
        times=Times(enqueued=100.0),
    )  # fmt: skip
    story = timeline.Story(status=waiting, arguments={}, journal={}, result=None)

    assert any("queued" in line for line in timeline.plain(story))


def test_a_parked_run_says_until_when_it_waits() -> None:
    """Nobody tries anything again meanwhile: the time is when it goes on without the signal."""
    due = 1_700_000_000.0
    parked = RunStatus(
        id="r", state=RunState.PARKED, attempt=1, workflow="w", version=None, error=None,
        times=Times(enqueued=100.0, due=due), awaits=("signal:go",),
    )  # fmt: skip

    said = waits_for(parked)

    assert said == f"{parked.waits_for}, until {clock(due)}"


@pytest.mark.parametrize(
    ("error", "told"), [("ValueError: low tide", True), ("worker_lost: 5 workers died", False)]
)
def test_a_failed_run_says_where_its_traceback_is(error: str, told: bool) -> None:
    """The record has the message alone; and a run whose workers died has none."""
    status = RunStatus(
        id="r", state=RunState.FAILED, attempt=1, workflow="w", version=None, error=error,
        times=Times(enqueued=100.0),
    )  # fmt: skip
    story = timeline.Story(status=status, arguments={}, journal={}, result=None)

    lines = list(timeline.plain(story))

    assert any(line.startswith("traceback") and "log" in line for line in lines) is told


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_of_any_width_gets_the_same_steps(width: int) -> None:
    """Narrow windows lose cells at the edge, never the failure."""
    failed = _record(
        status=RecordStatus.FAILED, value=["StepFailed", "ValueError", "ValueError: low"]
    )
    story = _story({"a#0": _record(), "b#0": failed})
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)

    timeline.draw(story, console)

    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a#0" in drawn
    assert "b#0" in drawn
    assert "ValueError" in drawn


def test_no_text_out_of_redis_moves_the_cursor() -> None:
    """An error message is written by whoever runs workflows, and read by whoever operates."""
    assert clean("a\x1b[2Jb\r\nc\x07") == "a [2Jb c"

    evil = Listing("runs", ("ID",), [Row("r", ["x\x1b[31m[red]y[/red]\nz"], {})])
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(rich_table(evil))

    assert list(plain_table(evil))[1] == "x [31m[red]y[/red] z"
    assert "\x1b[31m" not in console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0004, "0ms"), (0.25, "250ms"), (3.21, "3.2s"), (61, "61s"), (600, "10m"), (9000, "2h"),
     (400_000, "5d")],
)  # fmt: skip
def test_a_length_of_time_has_the_unit_that_fits(seconds: float, said: str) -> None:
    """As kubectl says ages."""
    assert span(seconds) == said


def _story(journal: dict[str, Record]) -> timeline.Story:
    status = RunStatus(
        id="r1", state=RunState.COMPLETED, attempt=1, workflow="w", version="1", error=None,
        times=Times(enqueued=99.0, started=100.0, ended=110.0),
    )  # fmt: skip
    return timeline.Story(status=status, arguments={"a": 1}, journal=journal, result=None)


def _record(
    kind: StepKind = StepKind.STEP,
    status: RecordStatus = RecordStatus.OK,
    *,
    began: float = 100.0,
    took_s: float = 1.0,
    value: object = None,
) -> Record:
    return Record(
        kind=kind, target="t", digest="", status=status, began=began, took_s=took_s, value=value,
        by="worker-token",
    )  # fmt: skip
