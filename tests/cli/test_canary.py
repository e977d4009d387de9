"""``canary``: a version on trial from a shell."""

from __future__ import annotations

import os

import pytest

from millstream import SyncClient
from tests.cli.inside import Inside

START = ("canary", "start", "flow", "--version", "2", "--kept", "1", "--unseen")


def test_a_canary_from_its_beginning_to_its_end(inside: Inside) -> None:
    started = inside(*START, "--share", "5", "--json")
    assert started.code == 0, started.err
    assert (started.json["share"], started.json["phase"]) == (0.05, "running")
    again = inside(*START, "--share", "100%")
    assert again.out == "flow in queue default: 100 % of its new runs get version 2\n"
    with SyncClient(os.environ["MILLSTREAM_REDIS"]) as client:
        assert client.enqueue("flow", id="one").status().version == "2"

    table = inside("canary", "status").out.splitlines()
    assert table[1].split()[:5] == ["flow", "2", "1", "100%", "running"]
    assert inside("canary", "end", "flow").code == 6
    assert "version 1" in inside("canary", "rollback", "flow", "--reason", "a trial").out
    (row,) = inside("canary", "status", "--json").json["trials"]
    assert (row["phase"], row["reason"], row["tried"]["failure_rate"]) == (
        "rolled_back", "a trial", 0.0,
    )  # fmt: skip
    assert inside("runs", "show", "one", "--json").json["run"]["version"] == "1"
    assert "version 2" in inside("canary", "promote", "flow").out
    assert inside("canary", "end", "flow", "--json").json == {"queue": "default", "ended": "flow"}
    assert inside("canary", "status", "--json").json == {"trials": []}

    verbs = [x["verb"] for x in inside("audit", "list", "--json").json["acts"]]
    assert verbs == [
        "start trial", "start trial", "end trial", "roll back trial", "promote trial", "end trial",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("start", "flow", "--version", "2", "--share", "5"), 2, "say which version"),
        (
            ("start", "flow", "--version", "2", "--kept", "1", "--share", "5"),
            2,
            "no worker of queue",
        ),
        (
            ("start", "flow", "--version", "2", "--kept", "2", "--share", "5", "--unseen"),
            2,
            "beside",
        ),
        ((*START[1:], "--share", "many"), 2, "is no percentage"),
        ((*START[1:], "--share", "0"), 2, "a share is more than 0 %"),
        (("promote", "flow"), 4, "no version of 'flow' is on trial"),
        (("rollback", "flow"), 4, "no version of 'flow' is on trial"),
    ],
)
def test_what_cannot_be_is_one_line(
    inside: Inside, arguments: tuple[str, ...], code: int, said: str
) -> None:
    answer = inside("canary", *arguments)
    assert (answer.code, len(answer.lines)) == (code, 1)
    assert said in answer.err


def test_another_version_waits_for_the_first_to_be_decided(inside: Inside) -> None:
    """Two trials of one workflow at once would tell nothing of either."""
    inside(*START, "--share", "5")
    other = inside("canary", "start", "flow", "--version", "3", "--kept", "1", "--unseen",
                   "--share", "5")  # fmt: skip
    assert other.code == 6
    assert "promote it or roll it back first" in other.err
