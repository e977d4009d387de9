"""``millstream enqueue``: what a script relies on."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.cli.inside import Inside
from tests.cli.program import Program


def test_a_run_is_enqueued_and_its_id_is_all_that_stdout_has(served: Program) -> None:
    """`id=$(millstream enqueue ...)` is the whole interface of a shell script."""
    said = served("enqueue", "slow", "--id", "plain-id", "--delay", "100")

    assert (said.code, said.out, said.err) == (0, "plain-id\n", "")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--arg", "a=4", "-a", "b=2"], ""),
        (["--json-args", '{"a": 4, "b": 2}'], ""),
        (["--file", "-"], '{"a": 4, "b": 2}'),
        (["--file", "arguments.json"], ""),
    ],
    ids=["arg", "json-args", "stdin", "file"],
)
def test_arguments_come_in_four_ways_to_the_same_result(
    arguments: list[str], stdin: str, served: Program
) -> None:
    """The result on stdout is JSON and nothing else, so it can be piped on."""
    (served.directory / "arguments.json").write_text('{"a": 4, "b": 2}', "utf-8")

    said = served("enqueue", "add", *arguments, "--wait", "--wait-timeout", "30", stdin=stdin)

    assert (said.code, said.out, said.err) == (0, "6\n", "")


def test_the_same_id_again_is_the_same_run(served: Program) -> None:
    """A caller that is not sure repeats itself, and is told that nothing was added."""
    first = served("enqueue", "add", "--arg", "a=1", "--id", "twice", "--wait", "--json")
    again = served("enqueue", "add", "--arg", "a=1", "--id", "twice", "--wait", "--json")

    assert first.json["created"] is True
    assert again.json == {**first.json, "created": False}
    assert again.json["result"] == 2
    assert len(again.lines) == 1


@pytest.fixture
def here(
    served: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inside:
    """The command line in this process, at the Redis that a worker serves."""
    monkeypatch.setenv("MILLSTREAM_REDIS", served.environment["MILLSTREAM_REDIS"])
    return Inside(served.directory, capsys)


def test_a_run_is_watched_while_it_goes_on(here: Inside) -> None:
    """Steps are lines as they happen; what --wait prints comes last."""
    said = here("enqueue", "speaks", "--id", "spoken", "--watch")

    assert (said.code, said.err) == (0, "")
    *lines, result = said.out.splitlines()
    words = [re.sub(r"after .*", "", line.partition("  ")[2]).split() for line in lines]
    assert words == [
        ["started", "double#0"], ["ended", "double#0", "ok"], ["found", '{"it":6}'],
    ]  # fmt: skip
    assert result == "6"


def test_whoever_was_cut_off_goes_on_watching_behind_what_it_saw(here: Inside) -> None:
    """Each document has an id; the last one says how the run ended, and so does the exit code."""
    watched = here("enqueue", "speaks", "--id", "broken", "--arg", "fail=true", "--watch")
    assert "ValueError: the tide is out" in watched.out
    assert watched.err == "error: run 'broken' failed: ValueError: the tide is out\n"

    said = here("runs", "watch", "broken", "--json")
    assert said.code == 1
    *events, end = map(json.loads, said.out.splitlines())
    assert [(e["kind"], e["name"]) for e in events] == [
        ("step", "started"), ("step", "ended"), ("emit", "found"), ("step", "started"),
        ("step", "retried"), ("step", "ended"),
    ]  # fmt: skip
    assert (end["state"], end["error"]["cause"]) == ("failed", "ValueError")
    rest = here("runs", "watch", "broken", "--json", "--after", events[3]["id"])
    assert list(map(json.loads, rest.out.splitlines())) == [*events[4:], end]
    assert here("runs", "watch", "no-such").code == 4


def test_a_failed_run_ends_the_command_with_one(served: Program) -> None:
    """With --json the document is there all the same, for whoever reads it."""
    said = served("enqueue", "fails", "--id", "fails-1", "--wait", "--json")

    assert said.code == 1
    assert said.json == {
        "id": "fails-1",
        "queue": "default",
        "created": True,
        "state": "failed",
        "error": {"cause": "ValueError", "message": "the tide is out"},
    }
    assert said.lines == ["error: run 'fails-1' failed: ValueError: the tide is out"]


def test_a_run_that_takes_too_long_goes_on(served: Program) -> None:
    """Time's being up is another thing than failure."""
    said = served("enqueue", "slow", "--id", "late", "--wait", "--wait-timeout", "0.3", "--json")

    assert said.code == 5
    assert said.json["timed_out"] is True
    assert len(said.lines) == 1
    assert served("runs", "cancel", "late").code == 0


def test_ctrl_c_leaves_the_run_and_says_where_to_look(served: Program) -> None:
    """Who interrupts the wait must not think to have stopped the run."""
    waiting = served.start("enqueue", "slow", "--id", "left-alone", "--wait")
    _until_listed(served, "left-alone", "running")

    said = waiting.stop(signal.SIGINT)

    assert said.code == 130
    assert "millstream runs show left-alone" in said.err
    assert served("runs", "show", "left-alone", "--json").json["run"]["state"] == "running"
    served("runs", "cancel", "left-alone")


def test_a_queue_without_workers_accepts_with_a_remark(program: Program) -> None:
    """The fleet may be scaled to zero; the run waits for it."""
    said = program("enqueue", "anything", "--queue", "later", "--json")

    assert said.code == 0
    assert said.json["queue"] == "later"
    assert len(said.lines) == 1
    assert "no worker serves queue 'later'" in said.err


def test_an_unknown_workflow_can_be_forced(served: Program) -> None:
    """A deployment may enqueue before its workers are rolled out."""
    said = served("enqueue", "from-tomorrow", "--id", "forced", "--force", "--delay", "100")

    assert (said.code, said.out) == (0, "forced\n")


def test_a_schedule_of_a_workflow_that_nobody_knows_can_be_forced(here: Inside) -> None:
    """A misspelt name is found out now, not by whoever misses its runs in the morning."""
    made = ("schedules", "create", "typo", "ad", "--every", "3600")
    refused = here(*made)
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "no worker of this queue knows workflow 'ad' (known: add@1" in refused.err
    assert here("schedules", "show", "typo").code == 4

    assert here(*made, "--force").code == 0
    assert here("schedules", "delete", "typo").code == 0


def test_the_doctor_finds_runs_that_are_handed_back(here: Inside) -> None:
    """They look as if they waited for their turn."""
    here("enqueue", "ad", "--id", "misspelt", "--force")
    deadline = time.monotonic() + 20
    while "no worker that took it can run workflow" not in (said := here("doctor").out):
        assert time.monotonic() < deadline, said
    assert "-> start a worker that can, or: millstream runs cancel " in said
    here("runs", "cancel", "misspelt")


def _until_listed(program: Program, run_id: str, state: str) -> None:
    for _ in range(50):
        found = program("runs", "list", "--state", state, "--json").out
        if any(run["id"] == run_id for run in json.loads(found)["runs"]):
            return

    raise AssertionError(f"{run_id} was never {state}")
