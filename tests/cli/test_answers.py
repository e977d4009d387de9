"""``millstream runs``: what is said to a run that waits for it."""

from __future__ import annotations

import time

from tests.cli.program import Program


def until(served: Program, run: str, state: str) -> str:
    """Return how the run is shown once it is in a state."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = served("runs", "show", run, "--json").json["run"]
        if found["state"] == state:
            return str(found["waits_for"])
        time.sleep(0.05)
    raise AssertionError(f"{run} is not {state}")


def test_a_signal_is_sent(served: Program) -> None:
    assert served("enqueue", "listens", "--id", "ear").code == 0
    assert until(served, "ear", "parked") == "signal 'go'"
    assert "signal 'go'" in served("runs", "list", "--state", "parked").out
    assert served("runs", "signal", "ear", "go", "{no json").code == 2
    assert served("runs", "signal", "nobody", "go").code == 4
    said = served("runs", "signal", "ear", "go", '{"ok":true}', "--id", "once", "--json")
    assert said.json == {"id": "ear", "signal": "go"}
    assert until(served, "ear", "completed") == "None"
    late = served("runs", "signal", "ear", "go")
    assert late.code == 2
    assert "takes nothing any more" in late.err


def test_a_question_is_listed_and_answered(served: Program) -> None:
    assert served("enqueue", "asks", "--id", "quest").code == 0
    until(served, "quest", "parked")
    (found,) = served("runs", "approvals", "--json").json["approvals"]
    assert (found["run_id"], found["question"]) == ("quest", "May I?")
    assert "May I?" in served("runs", "approvals").out
    assert served("runs", "reject", "quest", "other").code == 2
    assert served("runs", "approve", "quest", "--by", "ada", "--comment", "well").code == 0
    until(served, "quest", "completed")
    shown = served("runs", "show", "quest", "--json").json
    assert shown["result"] == ["ada", "well", True]


def test_only_what_is_in_doubt_is_resolved(served: Program) -> None:
    assert served("enqueue", "listens", "--id", "sure").code == 0
    until(served, "sure", "parked")
    assert served("runs", "resolve", "sure", "step").code == 2
    refused = served("runs", "resolve", "sure", "step", "--result", "1")
    assert refused.code == 2
    assert "is not in doubt" in refused.err
