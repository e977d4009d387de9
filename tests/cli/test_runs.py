"""``millstream runs``: what an operator sees and does."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace

import pytest

from tests.cli.program import Program


@pytest.fixture(scope="module")
def ended(served: Program) -> None:
    """One run that was completed, and one that failed."""
    assert served("enqueue", "add", "-a", "a=1", "--id", "good", "--wait").code == 0
    assert served("enqueue", "fails", "--id", "bad", "--tenant", "acme", "--wait").code == 1


def test_runs_are_listed_in_columns_the_newest_first(served: Program, ended: None) -> None:
    """A pipe gets plain columns, as `kubectl get` gives them."""
    lines = served("runs", "list", "--state", "completed", "--state", "failed").out.splitlines()

    assert lines[0].split() == ["ID", "WORKFLOW", "STATE", "ATTEMPT", "AGE", "TOOK", "ERROR"]
    ids = [line.split()[0] for line in lines[1:]]
    assert ids.index("bad") < ids.index("good")
    assert "\x1b" not in "".join(lines)


def test_filters_choose(served: Program, ended: None) -> None:
    """Of ten thousand runs somebody looks for three."""
    wide = served("runs", "list", "--workflow", "fails", "--tenant", "acme", "-o", "wide").out

    assert "bad" in wide
    assert "acme" in wide
    assert "good" not in wide
    assert served("runs", "list", "--tenant", "nobody", "--json").json == {"runs": []}
    assert served("runs", "list", "--tenant", "nobody").lines == ["note: no runs"]
    assert served("runs", "list", "--state", "asleep").code == 2
    assert served("runs", "list", "-o", "yaml").code == 2


def test_a_run_is_shown_with_each_step_on_a_timeline(served: Program, ended: None) -> None:
    """The first question about a run is where its time went, the second who did it."""
    said = served("runs", "show", "good").out

    assert "add@1" in said
    assert 'arguments  {"a":1}' in said
    assert "result     2" in said
    steps = [line for line in said.splitlines() if line.endswith("|")]
    names = [line.split()[0] for line in steps]
    assert names[-1] == "sleep#0"
    assert {"double#0", "double#1"} <= set(names)
    assert all("=" in line for line in steps)


def test_a_run_that_no_worker_can_run_says_so(served: Program) -> None:
    """It looks as if it were only slow."""
    served("enqueue", "unheard-of", "--version", "7", "--id", "stuck", "--force")
    reason = "no worker that took it can run workflow unheard-of version 7; refused"
    deadline = time.monotonic() + 20
    while reason not in (shown := served("runs", "show", "stuck").out):
        assert time.monotonic() < deadline, shown

    assert reason in served("runs", "list", "--workflow", "unheard-of").out
    (run,) = served("runs", "list", "--workflow", "unheard-of", "--json").json["runs"]
    assert run["waits_for"].startswith(reason)
    assert run["refusals"] >= 1
    assert served("runs", "show", "stuck", "--json").json["run"]["waits_for"].startswith(reason)


def test_a_failed_step_says_why(served: Program, ended: None) -> None:
    """And how often it was tried."""
    said = served("runs", "show", "bad").out

    assert "error      ValueError: the tide is out" in said
    assert "! ValueError: the tide is out" in said

    document = served("runs", "show", "bad", "--json").json
    (step,) = document["steps"]
    assert document["run"]["state"] == "failed"
    assert (step["key"], step["status"], step["attempts"]) == ("sink#0", "failed", 2)
    assert "tide" in json.dumps(step["error"])


def test_an_unknown_run_is_not_found(served: Program) -> None:
    """A script tells a typing mistake from an outage by the code."""
    said = served("runs", "show", "never-was")

    assert said.code == 4
    assert said.lines == [
        "error: no run 'never-was' in queue 'default': it was never enqueued, or its record expired"
    ]


def test_a_run_is_found_in_whichever_queue_is_set(program: Program) -> None:
    """An operator with several queues need not remember which one it was."""
    program("enqueue", "any", "--id", "somewhere", "-q", "second")
    both = replace(program, environment={**program.environment, "MILLSTREAM_QUEUE": "first,second"})

    assert both("runs", "show", "somewhere", "--json").json["run"]["queue"] == "second"
    assert both("runs", "show", "nowhere").code == 4


def test_each_run_is_cancelled_or_said_why_not(served: Program, ended: None) -> None:
    """One wrong id among several does not keep the others from their end."""
    served("enqueue", "slow", "--id", "to-cancel", "--delay", "100")

    said = served("runs", "cancel", "no-such", "to-cancel", "good")

    assert said.code == 4
    assert len(said.lines) == 1
    assert said.out.splitlines() == ["to-cancel cancelled", "good is already completed"]


def test_a_failed_run_is_tried_again_a_completed_one_is_not(served: Program, ended: None) -> None:
    """A second chance is for what went wrong."""
    served("enqueue", "fails", "--id", "again", "--wait")

    assert served("runs", "retry", "again", "--json").json == {
        "runs": [{"id": "again", "state": "queued"}]
    }
    said = served("runs", "retry", "good")
    assert said.code == 2
    assert "only failed and cancelled runs are retried" in said.err


def test_watching_writes_what_changes_as_lines_of_json(program: Program) -> None:
    """A program follows the list of runs without asking again itself."""
    watching = program.start("runs", "list", "--watch", "--interval", "0.1", "--json")
    program("enqueue", "any", "--id", "seen", "--delay", "100")
    watching.until('"scheduled"', stream="out")
    program("runs", "cancel", "seen")
    watching.until('"cancelled"', stream="out")

    said = watching.stop(signal.SIGINT)

    assert said.code == 130
    assert [json.loads(line)["state"] for line in said.out.splitlines()] == [
        "scheduled",
        "cancelled",
    ]


def test_a_reader_that_has_enough_is_no_error(served: Program, ended: None) -> None:
    """`millstream runs list | head -1` is a habit."""
    watching = served.start("runs", "list", "--watch", "--interval", "0.1")
    watching.until("good", stream="out")

    assert watching.stop(signal.SIGINT).lines == ["interrupted"]
