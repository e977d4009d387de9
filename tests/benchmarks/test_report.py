"""The table and the plot say what the lines say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report

MACHINE = {"cpus": 2, "repeat": 5, "peers": {"saq": {"saq": "1"}}}


def line(measure: str, metric: str, system: str, median: float | None, **more: Any) -> Any:
    """One line as a run writes it."""
    given = {"unit": "jobs/s", "better": "higher", "n": 5, "limit": None, **more}
    spread = {"min": median and median * 0.9, "max": median and median * 1.1}
    return {
        "measure": measure, "metric": metric, "system": system, "median": median, **spread, **given,
    }  # fmt: skip


LINES = [
    line("drain", "rate", "millstream", 40_000.0),
    line("drain", "rate", "bare", 80_000.0),
    line("drain", "rate", "saq", 2_000.0),
    line("latency", "p50", "millstream", 2.0, unit="ms", better="lower"),
    line("latency", "p50", "saq", 1.0, unit="ms", better="lower"),
    line("recovery_tuned", "killed to all going on", "millstream", 2.0, unit="s", better="lower"),
    line("recovery_tuned", "killed to all going on", "saq", None, unit="s", limit=20.0),
]


def test_the_best_of_a_row_is_bold_and_the_bound_is_no_rival() -> None:
    """A reader finds at a glance where we win and where we lose."""
    rows = {x.split(" |")[0][2:]: x for x in report.table(LINES, MACHINE).splitlines() if "|" in x}

    assert (
        "**40,000** (36,000 to 44,000) | 80,000 (72,000 to 88,000) | 2,000 ("
        in (rows["rate, jobs/s"])
    )
    assert rows["p50, ms"].endswith("2 (1.8 to 2.2) | **1** (0.9 to 1.1) |")
    assert rows["killed to all going on, s"].endswith("| not in 20 |")


def test_a_ratio_above_one_is_better_whatever_the_unit() -> None:
    """Fewer milliseconds and more jobs are both better; what never came has no ratio."""
    found = report.ratios(LINES)

    assert found["drain, 1 worker"] == {"bare": 0.5, "saq": 20.0}
    assert found["latency p50"] == {"saq": 0.5}
    assert "recovery, tuned" not in found


def test_what_is_drawn_is_measured() -> None:
    """A figure that was renamed would silently leave the plot."""
    source = "".join(
        file.read_text("utf-8") for file in (Path(report.__file__).parent / "measures").glob("*.py")
    )
    # Those whose names are put together from counts are looked at by their parts.
    metrics = {
        metric for _, metric in report.DRAWN if "caller" not in metric and " x " not in metric
    }

    assert [metric for metric in metrics if f'"{metric}"' not in source] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what matplotlib imports
def test_table_and_plot_are_written_beside_the_lines(tmp_path: Path) -> None:
    """An old run can be drawn again from its lines alone."""
    text = "".join(json.dumps(x) + "\n" for x in LINES)
    (tmp_path / report.LINES).write_text(text, "utf-8")
    (tmp_path / report.FACTS).write_text(json.dumps(MACHINE), "utf-8")

    written = report.write(tmp_path)

    assert [path.name for path in written] == ["results.md", "ratios.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
