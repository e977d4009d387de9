"""Two regions: a master with its workers, and a replica that takes over, in good order and without.

Never may both be written: two regions on two copies would run everything twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from millstream import Enqueue, SyncClient
from tests.cli.program import APP, Program
from tests.processes.fleet import wait_until
from tests.servers import RedisServer

_QUIET = ("--http", "-1", "--metrics", "-1")


@pytest.fixture
def regions() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master that refuses to write without its replica, and that replica."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    alone = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}
    fast = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
    with (
        RedisServer(appendonly=True, config={**alone, **fast}) as first,
        RedisServer(appendonly=True, config=fast) as second,
    ):
        follow(second, first)
        yield first, second


def follow(replica: RedisServer, master: RedisServer) -> None:
    with replica.client() as client:
        client.replicaof("127.0.0.1", master.port)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 15, "a link")
    with master.client() as client:
        wait_until(lambda: _writable(client), 15, "the replica counts")


def _writable(client: redis.Redis) -> bool:
    try:
        return bool(client.set("probe", "1"))
    except redis.ResponseError as error:
        refused = str(error)
    assert "READONLY" in refused or "NOREPLICAS" in refused or "read only" in refused, refused
    return False


@pytest.mark.slow
def test_a_region_is_handed_over_with_all_its_runs(
    regions: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """What was acknowledged before goes on behind, and the old side can write nothing."""
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    first, second = regions
    program = Program(tmp_path)
    runs = [Enqueue("add", {"a": n}, id=f"r{n}") for n in range(50)]
    with SyncClient(first.url) as client:
        client.enqueue_many(runs)

    said = program("failover", second.url, "--redis", first.url, "--json")
    assert said.code == 0, said.err
    assert said.json["lost_bytes"] == 0
    with first.client() as client:
        assert not _writable(client)

    worker = program.start("worker", "flows:app", *_QUIET, "--redis", second.url)
    try:
        with SyncClient(second.url) as client:
            results = [client.run(f"r{n}").result(timeout=30) for n in range(50)]
    finally:
        worker.stop()
    assert results == [n + 1 for n in range(50)]

    # And back, the same way.
    with second.client() as client:
        wait_until(lambda: client.info("replication")["connected_slaves"] == 1, 15, "it follows")
    back = program("failover", first.url, "--redis", second.url)
    assert back.code == 0, back.err
    assert "nothing is lost" in back.out


@pytest.mark.slow
def test_a_region_that_is_lost_is_fenced_before_the_other_opens(
    regions: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """It may come back as the master that it was; without its replica it refuses to write."""
    first, second = regions
    program = Program(tmp_path)
    with SyncClient(first.url) as client:
        client.enqueue("add", {"a": 1}, id="kept")
    with first.client() as plain:
        assert plain.wait(1, 5000) == 1
    first.kill()

    said = program("failover", second.url, "--redis", first.url, "--lost", "--fence", "2", "--json")
    assert said.code == 0, said.err
    assert said.json["lost_bytes"] is None
    assert said.json["seconds"] >= 2

    first.restart()
    with first.client() as client, second.client() as other:
        assert not _writable(client)
        assert _writable(other)
    with SyncClient(second.url) as client:
        assert client.run("kept").status().state == "queued"


def test_what_would_make_two_masters_is_refused(
    regions: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    """The addresses the wrong way round, and an old master that nobody has seen die."""
    first, second = regions
    program = Program(tmp_path)
    for arguments, says in (
        ((first.url, "--redis", second.url), "is no master"),
        ((second.url, "--redis", first.url, "--lost"), "--lost needs --fence"),
        ((second.url, "--redis", first.url, "--lost", "--fence", "0"), "the old master answers"),
        ((first.url, "--redis", second.url, "--lost", "--fence", "0"), "is a master already"),
        ((second.url, "--redis", "redis+cluster://127.0.0.1:1"), "is no single server"),
    ):
        said = program("failover", *arguments)
        assert (said.code, says in said.err) == (2, True), said

    with first.client() as client, second.client() as other:
        assert _writable(client)
        assert not _writable(other)

    # Two replicas and no master, as two new regions are: nobody writes, so one may be chosen.
    for server in regions:
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)
    chosen = program("failover", second.url, "--redis", first.url, "--lost", "--fence", "0")
    assert chosen.code == 0, chosen.err
    with first.client() as client:
        assert not _writable(client)
