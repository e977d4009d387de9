"""``queues``, ``dead`` and ``doctor``: how things are, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arranged import Cluster
from tests.cli.program import Program
from tests.processes.fleet import wait_until
from tests.servers import RedisServer


def test_queues_say_what_they_hold_and_who_serves_them(served: Program) -> None:
    """One line a queue, the same for people and for programs."""
    (queue,) = served("queues", "--json").json["queues"]

    assert queue["queue"] == "default"
    assert queue["workers"] == 1
    assert "add@1" in queue["workflows"]
    lines = served("queues", "-o", "wide").out.splitlines()
    assert lines[0].split()[:3] == ["QUEUE", "WAITING", "RUNNING"]
    assert len(lines) == 2


def test_all_queues_are_found_without_being_named(program: Program) -> None:
    """Somebody enqueues under a misspelt name, and somebody else has to find out."""
    for queue in ("one", "two.b"):
        program("enqueue", "any", "-q", queue)

    found = program("queues", "--all", "--json").json["queues"]

    assert [(row["queue"], row["waiting"]) for row in found] == [("one", 1), ("two.b", 1)]


def test_a_queue_is_limited_and_refuses(program: Program) -> None:
    """A script can tell a full queue from one that is away."""
    assert program("queues", "limit", "small").out.strip() == "queue small has no limit"
    said = program("queues", "limit", "small", "--depth", "1", "--json").json
    assert said == {"queue": "small", "depth_limit": 1, "lanes": 1}

    assert program("enqueue", "any", "-q", "small").code == 0
    refused = program("enqueue", "any", "-q", "small")
    assert refused.code == 8
    assert "queue 'small' is full" in refused.lines[-1]
    assert program("queues", "limit", "small", "--depth", "0").code == 0
    first = program("enqueue", "any", "-q", "small", "--dedupe", "a", "--window", "60").out
    assert program("enqueue", "any", "-q", "small", "--dedupe", "a", "--window", "60").out == first


def test_dead_letters_are_listed_and_replayed(served: Program) -> None:
    """What failed for good gets its second chance by id, by filter, or all together."""
    for name in ("d1", "d2"):
        served("enqueue", "fails", "--id", name, "--wait")

    listed = served("dead", "list", "--workflow", "fails", "--cause", "ValueError", "--json").json
    assert {"d1", "d2"} <= {run["id"] for run in listed["dead"]}
    assert served("dead", "list", "--cause", "worker_lost", "--json").json == {"dead": []}

    assert served("dead", "replay", "d1", "--json").json == {"replayed": ["d1"], "skipped": 0}
    replayed = served("dead", "replay", "--all", "--workflow", "fails", "--json").json
    assert "d2" in replayed["replayed"]
    assert served("dead", "replay", "no-such").code == 4


def test_a_replay_says_which_or_all() -> None:
    """Nothing is replayed by a command that was not finished."""
    from pathlib import Path

    program = Program(Path.cwd())

    assert program("dead", "replay").lines == ["error: say which: ids of runs, or --all"]
    assert program("dead", "replay", "x", "--all").code == 2


def test_the_doctor_finds_a_healthy_house(served: Program) -> None:
    """What is in order is said too: otherwise nobody knows what was looked at."""
    # The worker makes the schedule of its application soon after it has started.
    wait_until(
        lambda: served("schedules", "list", "--json").json["schedules"], 20, "there is a schedule"
    )
    said = served("doctor", "--json")
    found = {finding["subject"]: finding["detail"] for finding in said.json["findings"]}
    assert found["schedules"].startswith("the next fires in ")

    levels = {finding["subject"]: finding["level"] for finding in said.json["findings"]}
    assert said.code == 0
    assert said.json["ok"] is True
    assert {"redis", "latency", "memory", "persistence", "clock", "queue default"} <= levels.keys()
    assert levels["redis"] == levels["latency"] == levels["clock"] == "ok"


def test_the_doctor_has_a_remedy_for_what_is_not(served: Program, evicting: RedisServer) -> None:
    """A finding without a remedy is a complaint."""
    away = served("doctor", "--redis", "redis://127.0.0.1:1", "--json")
    unfit = served("doctor", "--redis", evicting.url, "--json")
    plain = served("doctor", "--redis", evicting.url)

    assert (away.code, unfit.code, plain.code) == (3, 3, 3)
    for said in (away, unfit):
        found = [each for each in said.json["findings"] if each["level"] != "ok"]
        assert [each["subject"] for each in found] == ["redis"]
        assert all(each["remedy"] for each in found)
    assert "-> set maxmemory-policy to noeviction" in plain.out


def test_the_doctor_looks_at_every_master(tmp_path: Path) -> None:
    """The one that is not well need not be the first."""
    with Cluster(3) as cluster:
        with cluster.servers[2].client() as client:
            client.config_set("maxmemory", 2**30)
        said = Program(tmp_path, {"MILLSTREAM_REDIS": cluster.url})("doctor", "--json")

        masters = {f"127.0.0.1:{server.port}" for server in cluster.servers}
        found = said.json["findings"]
        for subject in ("redis", "latency", "memory", "persistence", "clock"):
            of = [each for each in found if each["subject"] == subject]
            assert len(of) == 3
            assert {node for node in masters for each in of if node in each["detail"]} == masters
        unlimited = [x for x in found if x["subject"] == "memory" and x["level"] == "warning"]
        assert len(unlimited) == 2


def test_the_doctor_misses_the_workers_of_a_queue_that_waits(program: Program) -> None:
    """The usual reason why nothing happens."""
    program("enqueue", "any", "-q", "lonely")

    said = program("doctor")

    assert "1 open run, and no worker is alive" in said.out
    assert "-> millstream worker APP -q lonely" in said.out


@pytest.fixture
def evicting() -> Iterator[RedisServer]:
    """A Redis that throws keys away when it is full."""
    with RedisServer(config={"maxmemory-policy": "allkeys-lru"}) as server:
        yield server
