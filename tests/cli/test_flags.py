"""A setting has one name in four places: no flag without a setting, no setting without a flag."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from millstream.cli.flags import ClientConfig, Given, command
from millstream.errors import ConfigError
from millstream_scheduler.config import SchedulerConfig
from millstream_worker.config import WorkerConfig
from tests.cli.inside import Inside
from tests.cli.program import Program

PROCESSES = {"worker": WorkerConfig, "scheduler": SchedulerConfig, "dev": WorkerConfig}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_a_flag_for_each_of_its_settings_and_no_other(
    name: str, tmp_path: Path
) -> None:
    """Whoever adds a setting gets the flag, and whoever looks for one finds it in the help."""
    said = Program(tmp_path)(name, "--help")

    flags = set(re.findall(r"^\s+(?:-\w, )?--([a-z-]+)", said.out, re.MULTILINE))
    settings = {each.name.replace("_", "-") for each in fields(PROCESSES[name])}
    assert said.code == 0
    assert flags - settings == {"help", "json"} | (
        {"enqueue", "arg", "json-args", "file", "once"} if name == "dev" else set()
    )
    assert settings <= flags


def test_a_command_says_what_is_other_than_in_the_settings_it_takes(inside: Inside) -> None:
    """A help that names a default which is not taken sends people the wrong way."""
    dev = inside("dev", "--help").out
    assert "8080" not in dev
    assert "localhost:6379" not in dev
    for words in (("dev",), ("schedules", "apply")):
        said = " ".join(inside(*words, "--help").out.split())
        assert "Without: only what is built in" not in said, "an application is required"
    assert "several times" not in inside("enqueue", "--help").out
    gateway = inside("gateway", "--help").out
    assert re.search(r"--rate N\s", gateway)
    assert re.search(r"--enqueue-rate N\s", gateway)


@pytest.mark.parametrize(
    "group", ["runs", "schedules", "canary", "queues", "dead", "keys", "seal", "audit"]
)
def test_a_group_says_of_each_command_all_it_is_for(group: str, inside: Inside) -> None:
    """The half that tells it from its neighbours is often the second."""
    said = inside(group, "--help")

    assert said.code == 0
    assert "..." not in said.out.partition("Commands:")[2]


def test_flags_beat_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearer a value is to who calls, the more it counts."""
    (tmp_path / "millstream.toml").write_text('queue = ["file"]\npatience = 7\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLSTREAM_REDIS", "redis://environment")

    assert _seen([]) == ("redis://environment", ("file",), 7.0)
    assert _seen(["--redis", "redis://flag", "-q", "a", "--queue", "b"])[:2] == (
        "redis://flag",
        ("a", "b"),
    )


def test_a_value_is_read_from_a_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in the environment is handed on to every program that a step starts."""
    secret = tmp_path / "url"
    secret.write_text("redis://mounted\n", "utf-8")
    (tmp_path / "millstream.toml").write_text('redis = "redis://file"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLSTREAM_REDIS_FILE", str(secret))

    assert _seen([])[0] == "redis://mounted"
    monkeypatch.setenv("MILLSTREAM_REDIS", "redis://environment")
    assert _seen([])[0] == "redis://environment"


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the default would be taken, and a worker would wait for a Redis that nobody has."""
    monkeypatch.setenv("MILLSTREAM_REDIS_FILE", str(tmp_path / "missing"))

    with pytest.raises(ConfigError, match=r"MILLSTREAM_REDIS_FILE: cannot read .*missing"):
        Given({"redis": None, "queue": []}).resolved(ClientConfig)


def test_an_empty_flag_is_refused_and_not_taken_for_none() -> None:
    """`--patience "$UNSET"` must not quietly mean the default."""
    with pytest.raises(ConfigError, match="--patience"):
        Given({"patience": "", "queue": []}).resolved(ClientConfig)


def _seen(arguments: list[str]) -> tuple[Any, ...]:
    seen: list[ClientConfig] = []

    @command(ClientConfig)
    def look(*, config: ClientConfig, out: object) -> None:
        del out
        seen.append(config)

    app = typer.Typer(add_completion=False)
    app.command()(look)
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    return seen[0].redis, seen[0].queue, seen[0].patience
