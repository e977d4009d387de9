"""``millstream dev``: from nothing to a result in one command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.program import APP, Program


@pytest.fixture
def alone(tmp_path: Path) -> Program:
    """The command line with an application and no Redis."""
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    # An address of production, which `dev` must not touch.
    return Program(tmp_path, {"MILLSTREAM_REDIS": "redis://127.0.0.1:1"})


@pytest.mark.parametrize("server", ["redis-server", "fakeredis", "memory"])
def test_one_command_runs_a_workflow(server: str, alone: Program) -> None:
    """Whatever is installed: a Redis of its own, the in-memory one, or none outside."""
    environment = dict(alone.environment)
    if server == "redis-server" and shutil.which(server) is None:
        pytest.skip("redis-server is not on PATH")
    if server == "fakeredis":
        environment["PATH"] = os.devnull
    more = ("--redis", "memory://") if server == "memory" else ()

    said = Program(alone.directory, environment)(
        "dev", "flows:app", "--enqueue", "add", "--arg", "a=4", "--once", "--json", *more
    )

    assert said.code == 0, said.err
    serving, ended = map(json.loads, said.out.splitlines())
    assert serving["event"] == "serving"
    assert "add@1" in serving["workflows"]
    assert ended["result"] == 5


def test_once_ends_as_the_run_ended(alone: Program) -> None:
    """It serves as a test of a workflow in a script."""
    said = alone("dev", "flows:app", "--redis", "memory://", "--enqueue", "fails", "--once")

    assert said.code == 1
    assert "ValueError: the tide is out" in said.err
    assert "try:" not in said.out, "its store is gone by the time that anybody could"


def test_others_reach_it_until_it_is_stopped(alone: Program) -> None:
    """The address that it prints is good for every other command."""
    dev = alone.start("dev", "flows:app")
    address = dev.until("--redis", stream="out").split("--redis ")[1].split()[0]
    dev.until("worker_started")
    said = alone("enqueue", "add", "-a", "a=1", "--wait", "--redis", address)
    ended = dev.stop(signal.SIGINT)

    assert (said.code, said.out) == (0, "2\n")
    assert ended.code == 0
    assert alone("queues", "--redis", address, "--patience", "0").code == 3, "the server is gone"


def test_what_belongs_together_is_asked_for_together(alone: Program) -> None:
    """`--once` without a run would end at once, or never."""
    assert alone("dev", "flows:app", "--once").lines == [
        "error: arguments and --once belong to --enqueue WORKFLOW"
    ]
    assert alone("dev", "flows:app", "-a", "a=1").code == 2


def test_a_run_of_a_workflow_that_it_does_not_have_is_refused_at_once(alone: Program) -> None:
    """It would be handed back by its only worker for eight minutes."""
    said = alone("dev", "flows:app", "--enqueue", "nope", "--once")

    assert said.code == 2
    assert len(said.lines) == 1
    assert "knows workflow 'nope' (known: add@1" in said.err


def test_the_line_that_it_suggests_works_when_pasted(alone: Program) -> None:
    """It has the arguments that the workflow requires, the address and the queue."""
    dev = alone.start("dev", "flows:app", "--queue", "trial", "--json")
    served = json.loads(dev.until("serving", stream="out").splitlines()[0])
    dev.until("worker_started")
    try:
        said = alone("dev", "flows:app", "--redis", served["redis"], "--queue", "other", "--once",
                     "--enqueue", "add", "-a", "a=1")  # fmt: skip
        line = next(x for x in said.out.splitlines() if x.startswith("try: millstream "))
        words = shlex.split(line.removeprefix("try: millstream "))
        pasted = alone(*["trial" if word == "other" else word for word in words])
    finally:
        dev.stop(signal.SIGINT)

    assert words[:4] == ["enqueue", "add", "--arg", "a=1"]
    assert (pasted.code, pasted.out) == (0, "2\n")
