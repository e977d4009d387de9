"""``millstream audit``: the trail is read, taken elsewhere, and proved whole."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from millstream.cli import answer
from millstream.model.audit import Act, End
from millstream.store import audit
from millstream.store.audit import TRAIL
from millstream.store.connection import Connection
from tests.servers import RedisServer


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Millstream = Callable[..., Said]


@pytest.fixture
def millstream(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Millstream:
    """The command line in this process, at an empty Redis: a process a command takes its time."""
    redis_server.flush()
    monkeypatch.setenv("MILLSTREAM_REDIS", redis_server.url)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = answer(arguments)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def acted(millstream: Millstream) -> Millstream:
    """Three acts of two people."""
    for number in range(3):
        millstream("enqueue", "any", "--id", f"r{number}")
        millstream("runs", "cancel", f"r{number}", "--actor", "ada" if number else "eve")
    return millstream


def test_the_trail_is_listed_exported_and_verified(
    acted: Millstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = acted("audit", "list", "--json").json["acts"]
    assert [(x["seq"], x["actor"], x["verb"], x["target"]) for x in listed] == [
        (1, "eve", "cancel", "r0"),
        (2, "ada", "cancel", "r1"),
        (3, "ada", "cancel", "r2"),
    ]

    exported = acted("audit", "export")
    assert [json.loads(line)["seq"] for line in exported.out.splitlines()] == [1, 2, 3]
    Path("trail.jsonl").write_text(exported.out, "utf-8")
    there = acted("audit", "verify", "--json").json
    taken = acted("audit", "verify", "--file", "trail.jsonl", "--json").json
    assert there == taken
    assert f"{there['seq']}:{there['hash']}" in exported.err

    part = acted("audit", "export", "--after", "2").out.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(part)))
    found = acted("audit", "verify", "-f", "-", "--json").json
    # What is missing in front of an export shows in where it begins, and nowhere else.
    assert (found["entries"], found["first"], found["seq"]) == (1, 3, 3)


def test_an_end_that_was_kept_elsewhere_must_still_stand(
    acted: Millstream, redis_server: RedisServer
) -> None:
    """Whoever can write to Redis can write a whole new trail, but not the one that was."""
    end = acted("audit", "verify", "--json").json
    anchor = f"{end['seq']}:{end['hash']}"
    acted("runs", "retry", "r0")
    assert acted("audit", "verify", "--anchor", anchor).code == 0

    with redis_server.client() as redis:
        redis.delete(*TRAIL.keys)
    for _ in range(4):
        acted("runs", "cancel", "r0")
    assert acted("audit", "verify").code == 0
    said = acted("audit", "verify", "--anchor", anchor)
    assert (said.code, "known from elsewhere" in said.err) == (7, True)


def test_what_was_taken_out_changed_or_cut_off_is_named(
    acted: Millstream, redis_server: RedisServer
) -> None:
    lines = acted("audit", "export").out
    Path("edited.jsonl").write_text(lines.replace("eve", "bob"), "utf-8")
    said = acted("audit", "verify", "-f", "edited.jsonl")
    assert (said.code, "entry 2" in said.err) == (7, True)

    with redis_server.client() as redis:
        redis.xdel(TRAIL.keys[0], "3-0")
        cut = acted("audit", "verify")
        redis.xdel(TRAIL.keys[0], "2-0")
        gap = acted("audit", "verify")
    assert (cut.code, "should end with entry 3" in cut.err) == (7, True)
    assert (gap.code, "entry 2" in gap.err) == (7, True)


def test_a_trail_whose_end_was_taken_away_does_not_hold(
    acted: Millstream, redis_server: RedisServer
) -> None:
    """Else who deletes one key has every entry pass for one that was written just now."""
    with redis_server.client() as redis:
        redis.delete(TRAIL.keys[1])
        said = acted("audit", "verify")
        assert (said.code, "entry 1: it stands behind the end" in said.err) == (7, True)
        redis.hset(TRAIL.keys[1], mapping={"seq": "many", "hash": "x"})
        said = acted("audit", "verify")
    assert (said.code, "its two ends cannot be read" in said.err) == (7, True)


def test_an_entry_that_was_put_behind_the_end_is_named(
    acted: Millstream, redis_server: RedisServer
) -> None:
    """Nobody has written it but into the stream: a list shows it, so a proof must not."""
    with redis_server.client() as redis:
        (_, last), *_ = redis.xrevrange(TRAIL.keys[0], count=1)
        forged = json.dumps({**json.loads(last[b"entry"]), "seq": 4, "actor": "bob"})
        redis.xadd(TRAIL.keys[0], {"entry": forged, "hash": "x"}, id="4-0")
    said = acted("audit", "verify")
    assert (said.code, "entry 4" in said.err) == (7, True)


def test_entries_that_are_none_are_named_and_read_once(
    acted: Millstream, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pages by the number of an entry reads those between two numbers for ever."""
    monkeypatch.setattr(audit, "_PAGE", 4)
    with redis_server.client() as redis:
        for part in range(1, 9):
            redis.xadd(TRAIL.keys[0], {"nothing": "of ours"}, id=f"3-{part}")
    for command in ("list", "export", "verify"):
        said = acted("audit", command)
        assert (said.code, "cannot be read" in said.err) == (7, True)


def test_what_is_no_entry_is_no_bug_of_ours(acted: Millstream, redis_server: RedisServer) -> None:
    with redis_server.client() as redis:
        redis.xadd(TRAIL.keys[0], {"entry": "nonsense", "hash": "x"}, id="4-0")
    for command in ("list", "export", "verify"):
        assert acted("audit", command).code == 7


def test_an_empty_trail_holds(millstream: Millstream) -> None:
    empty = {"entries": 0, "first": 1, "seq": 0, "hash": ""}
    assert millstream("audit", "verify", "--json").json == empty
    assert millstream("audit", "export").out == ""
    assert millstream("audit", "verify", "--anchor", "nonsense").code == 2


def test_who_acts_is_the_user_unless_it_is_said(millstream: Millstream) -> None:
    millstream("enqueue", "any", "--id", "r1")
    millstream("runs", "cancel", "r1")
    (act,) = millstream("audit", "list", "--json").json["acts"]
    assert "@" in act["actor"]


def test_a_collector_that_is_away_fails_no_command(millstream: Millstream) -> None:
    """Tracing is for those who look; the run is accepted either way."""
    said = millstream("enqueue", "any", "--id", "r1", "--otlp-endpoint", "http://127.0.0.1:1")
    assert (said.code, said.out) == (0, "r1\n")


def test_an_endpoint_that_cannot_be_is_refused(millstream: Millstream) -> None:
    """Port 4317 of a collector speaks gRPC, and its address is often given without http."""
    said = millstream("enqueue", "any", "--otlp-endpoint", "collector:4317")
    assert (said.code, "OTLP over HTTP" in said.err) == (2, True)


async def test_a_trail_that_is_trimmed_while_it_is_read_is_not_called_broken(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first entry that was asked for is gone, and nobody took it out in secret."""
    from millstream.cli.audit import _verified

    connection = Connection(memory_url)
    act = Act(actor="ada", origin="", verb="cancel", queue="q", target="r", result="ok")
    await audit.append(connection, [act] * 3)
    bounds = audit.bounds
    trimmed = False

    async def bounds_then_trim(connection: Connection) -> tuple[End, End]:
        nonlocal trimmed
        found = await bounds(connection)
        if not trimmed:
            trimmed = True
            await audit.append(connection, [act], most=2)
        return found

    monkeypatch.setattr(audit, "bounds", bounds_then_trim)
    chain = await _verified(connection, None)
    await connection.aclose()

    assert (chain.count, chain.end.seq) == (2, 4)
