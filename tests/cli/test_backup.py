"""``backup`` and ``restore`` from a shell: into files, directories and pipes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from millstream import SyncClient
from tests.cli.inside import Inside
from tests.servers import RedisServer


def filled() -> None:
    """A queue with a few runs."""
    with SyncClient(os.environ["MILLSTREAM_REDIS"]) as client:
        client.enqueue("flow", {"n": 1}, id="one")
        client.enqueue("flow", {"n": 2}, id="two", delay=600)
        client.enqueue("flow", id="three").cancel()


def states(inside: Inside) -> dict[str, str]:
    rows = inside("runs", "list", "--json").json["runs"]
    return {row["id"]: row["state"] for row in rows}


def test_a_copy_is_brought_back_into_an_empty_redis(
    inside: Inside, redis_server: RedisServer
) -> None:
    filled()
    before = states(inside)
    made = inside("backup", "copy.backup", "--json")
    assert (made.code, made.json["runs"], made.json["unknown"]) == (0, 3, 0), made.err
    file = inside.directory / "copy.backup"
    assert (file.stat().st_size, stat.S_IMODE(file.stat().st_mode)) == (made.json["bytes"], 0o600)
    assert [path.name for path in inside.directory.iterdir()] == ["copy.backup"]

    refused = inside("restore", "copy.backup")
    assert (refused.code, len(refused.lines)) == (6, 1)
    assert "is not empty" in refused.err
    redis_server.flush()
    back = inside("restore", "copy.backup", "--json")
    assert (back.code, back.json["runs"], back.json["restored"]) == (0, 3, True), back.err
    assert back.json["sha256"] == made.json["sha256"]
    assert states(inside) == before
    assert inside("queues", "--json").json["queues"][0]["paused"] is False


def test_a_directory_keeps_the_newest_and_gives_it_back(
    inside: Inside, redis_server: RedisServer
) -> None:
    """As a job by the hour wants it."""
    filled()
    copies = inside.directory / "copies"
    copies.mkdir()
    for name in ("20200101T000000Z", "20200102T000000Z"):
        (copies / f"millstream-{name}.backup").write_bytes(b"old")
    made = inside("backup", str(copies), "--keep", "2", "--json")
    assert made.json["dropped"] == ["millstream-20200101T000000Z.backup"], made.err
    checked = inside("restore", str(copies), "--verify")
    assert checked.out.startswith(f"{made.json['file']} is whole: 3 runs")
    redis_server.flush()
    assert inside("restore", str(copies)).code == 0
    assert len(states(inside)) == 3


def test_a_copy_goes_through_a_pipe(inside: Inside, redis_server: RedisServer) -> None:
    """Such as one that encrypts it on its way."""
    filled()
    before = states(inside)
    program = [sys.executable, "-m", "millstream.cli"]
    copy = subprocess.run([*program, "backup", "-"], capture_output=True, check=True)
    assert b"note: 3 runs" in copy.stderr
    redis_server.flush()
    subprocess.run([*program, "restore", "-"], input=copy.stdout, check=True, capture_output=True)
    assert states(inside) == before


@pytest.mark.parametrize("data", [None, b"", b"no backup", "cut"])
def test_what_is_no_whole_copy_changes_nothing(
    inside: Inside, redis_server: RedisServer, data: bytes | str | None
) -> None:
    filled()
    file = inside.directory / "copy.backup"
    if data == "cut":
        inside("backup", str(file))
        file.write_bytes(file.read_bytes()[:-9])
    elif isinstance(data, bytes):
        file.write_bytes(data)
    redis_server.flush()

    for flags in ((), ("--verify",)):
        answer = inside("restore", str(file), *flags)
        assert (answer.code, len(answer.lines)) == (2, 1)
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_a_copy_that_is_cut_off_leaves_no_file(inside: Inside, tmp_path: Path) -> None:
    """Nothing may look like a backup that is none."""
    answer = inside("backup", "copy.backup", "--redis", "redis://127.0.0.1:1/0")
    assert (answer.code, list(tmp_path.iterdir())) == (3, [])
    assert inside("backup", "copy.backup", "--keep", "3").code == 2
    assert inside("backup", "nowhere/copy.backup").code == 2
