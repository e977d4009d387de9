"""The benchmark measures, writes what it found, and leaves nothing behind.

Small counts and ourselves alone: what is held here is that it works, never how fast anything is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.catalogue import SYSTEMS
from benchmarks.environments import ROOT, requirements
from benchmarks.measures import QUICK, Sizes, measures
from benchmarks.runner import Mistaken, Row, plan


def start(*arguments: str, temporary: Path) -> subprocess.Popen[str]:
    """Start the command; what it leaves behind would lie in a directory of ours."""
    out = str(temporary / "out")
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", "--out", out, *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_writes_lines_and_a_table(tmp_path: Path) -> None:
    """Enqueue, drain and latency of ourselves, twice: every figure is a number."""
    process = start(
        *("--measures", "enqueue,drain,latency", "--systems", "millstream", "--repeat", "2"),
        temporary=tmp_path,
    )
    out, err = process.communicate(timeout=100)

    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines == _lines(tmp_path / "out")
    assert {line["measure"] for line in lines} == {"enqueue", "drain", "latency"}
    assert {(line["system"], line["n"]) for line in lines} == {("millstream", 2)}
    assert [x for x in lines if not x["min"] <= x["median"] <= x["max"]] == []
    rate = next(x for x in lines if (x["measure"], x["metric"]) == ("drain", "rate"))
    assert rate["min"] > 0
    table = (tmp_path / "out" / "results.md").read_text("utf-8")
    assert [x["metric"] for x in lines if f"| {x['metric']}, {x['unit']} |" not in table] == []
    assert not list(tmp_path.glob("millstream-bench-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C in the middle ends the server, the workers and the callers, and says so."""
    process = start("--measures", "idle", "--systems", "millstream,bare", temporary=tmp_path)
    children = _children(process, at_least=2)

    process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted")
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert (len(gone), alive) == (len(children), [])
    assert not list(tmp_path.glob("millstream-bench-*"))


def test_what_does_not_exist_is_one_line(tmp_path: Path) -> None:
    """A typo costs no environment and no minute."""
    process = start("--measures", "drian", temporary=tmp_path)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 2
    assert len(err.splitlines()) == 1
    assert "'drian'" in err
    assert "drain," in err


def test_every_system_and_measure_can_be_asked_for() -> None:
    """By default everybody takes part in a drain; a name that does not exist is refused."""
    planned = {measure.name: [x.name for x in systems] for measure, systems in plan([], [])}

    assert planned.keys() == measures().keys()
    assert planned["drain"] == [name for name in SYSTEMS if name != "mcp-client"]
    assert planned["tools"] == ["millstream", "mcp-client"]
    assert planned["recovery"] == ["millstream"]
    # Asked for by name, a peer takes part in what takes it minutes.
    ((_, asked),) = plan(["recovery"], ["streaq", "bare"])
    assert [x.name for x in asked] == ["streaq"]
    with pytest.raises(Mistaken):
        list(plan([], ["celery"]))


def test_every_peer_has_a_pinned_release_and_a_module() -> None:
    """What was measured must be possible to install again."""
    peers = set(SYSTEMS) - {"millstream", "bare", "mcp-client"}

    assert set(requirements()) == peers
    loose = [x for wanted in requirements().values() for x in wanted if "==" not in x]
    assert loose == []
    modules = {file.stem for file in (ROOT / "benchmarks" / "systems").glob("[a-z]*.py")}
    assert modules == peers | {"millstream", "bare"}


def test_samples_that_came_too_late_are_not_left_out_of_the_median() -> None:
    """Three of five in time is a median, two of five is none: late is worse than every number."""

    def row(*samples: float | None) -> Row:
        return Row("recovery", "seconds", "x", "s", "lower", list(samples), 20.0)

    assert row(1, None, 3, 2, None).median == 3
    assert row(1, None, None, 2, None).median is None
    assert row(1, None, None, 2, None).line()["max"] == 2


def test_a_quick_run_is_smaller_in_everything() -> None:
    """Whoever tries it out does not wait for the whole."""
    whole, quick = Sizes(), QUICK

    assert [x for x in Sizes.__slots__ if getattr(quick, x) >= getattr(whole, x)] == []


def _lines(directory: Path) -> list[dict[str, Any]]:
    text = (directory / "results.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _children(process: subprocess.Popen[str], at_least: int) -> list[psutil.Process]:
    """Return what the command has started, once that is enough."""
    while process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        if len(children) >= at_least:
            return children
    raise AssertionError(f"it ended with {process.returncode}")
