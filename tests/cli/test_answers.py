"""``millstream runs``: what is said to a run that waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from millstream import SyncClient
from tests.cli.program import Program


@pytest.fixture(scope="module")
def client(served: Program) -> Iterator[SyncClient]:
    """Looks without the price of a process."""
    with SyncClient(served.environment["MILLSTREAM_REDIS"]) as client:
        yield client


def parked(client: SyncClient, workflow: str) -> str:
    """Enqueue a run; return its id once it waits."""
    run = client.enqueue(workflow)
    deadline = time.monotonic() + 20
    while run.status().state != "parked":
        assert time.monotonic() < deadline, run.status()
        time.sleep(0.02)
    return run.id


def test_a_signal_is_sent(served: Program, client: SyncClient) -> None:
    ear = parked(client, "listens")
    assert "signal 'go'" in served("runs", "list", "--state", "parked").out
    assert served("runs", "signal", ear, "go", "{no json").code == 2
    said = served("runs", "signal", ear, "go", '{"ok":true}', "--id", "once", "--json")
    assert said.json == {"id": ear, "signal": "go"}
    assert client.run(ear).result(20) == {"ok": True}
    late = served("runs", "signal", ear, "go")
    assert late.code == 2
    assert "takes nothing any more" in late.err


def test_a_question_is_listed_and_answered(served: Program, client: SyncClient) -> None:
    quest = parked(client, "asks")
    (found,) = served("runs", "approvals", "--json").json["approvals"]
    assert (found["run_id"], found["question"]) == (quest, "May I?")
    assert served("runs", "reject", quest, "other").code == 2
    assert served("runs", "approve", quest, "--by", "ada", "--comment", "well").code == 0
    assert client.run(quest).result(20) == ["ada", "well", True]


def test_only_what_is_in_doubt_is_resolved(served: Program, client: SyncClient) -> None:
    sure = parked(client, "listens")
    assert served("runs", "resolve", sure, "step").code == 2
    refused = served("runs", "resolve", sure, "step", "--result", "1")
    assert refused.code == 2
    assert "is not in doubt" in refused.err
