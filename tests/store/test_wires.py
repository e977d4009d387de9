"""Calls to a cluster go to the master that has their keys, on one connection each.

The cluster is a real one, of three masters; slots are moved in it as an operator moves them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
import redis.exceptions as refused

from millstream.store.connection import Connection
from millstream.store.wires import Wires
from tests.arranged import Cluster
from tests.servers import RedisServer

#: Sets its key to what it is given, and returns what stood there.
SWAP = "local old = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1]) return old"
#: Keys of three masters: the owner of each is the master of that number.
KEYS = ("b", "c", "a")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with Cluster(3) as cluster:
        assert [cluster.servers.index(cluster.owner(key)) for key in KEYS] == [0, 1, 2]
        yield cluster


@pytest.fixture
async def wires(cluster: Cluster) -> AsyncIterator[Wires]:
    cluster.flush()
    connection = Connection(cluster.url)
    assert isinstance(connection.scripts, Wires)
    yield connection.scripts
    await connection.aclose()


async def swap(wires: Wires, key: str, value: object) -> bytes | None:
    """Call the script on one key."""
    old: bytes | None = await wires.execute_command("EVAL", SWAP, 1, key, value)
    return old


def connections(server: RedisServer) -> int:
    """How many connections a server has, those of the cluster and this look left out."""
    with server.client() as client:
        return len(client.client_list(_type="normal")) - 1


def node_id(server: RedisServer) -> str:
    """What a server is called in its cluster."""
    with server.client() as client:
        return str(client.execute_command("CLUSTER", "MYID").decode())


def set_slot(server: RedisServer, key: str, *what: str) -> None:
    """Say something of a key's slot to one server."""
    with server.client() as client:
        slot = client.execute_command("CLUSTER", "KEYSLOT", key)
        client.execute_command("CLUSTER", "SETSLOT", slot, *what)


async def test_a_hundred_calls_share_one_connection_a_master(
    wires: Wires, cluster: Cluster
) -> None:
    """Each gets its own answer."""
    for key in KEYS:
        await swap(wires, key, "first")
    before = [connections(server) for server in cluster.servers]
    answers: dict[str, bytes | None] = {}

    async def ask(number: int) -> None:
        key = f"{{{KEYS[number % 3]}}}{number}"
        await swap(wires, key, number)
        answers[key] = await swap(wires, key, "again")

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask, number)

    assert answers == {f"{{{KEYS[n % 3]}}}{n}": b"%d" % n for n in range(100)}
    assert [connections(server) for server in cluster.servers] == before


async def test_a_call_has_left_before_its_caller_waits(wires: Wires, cluster: Cluster) -> None:
    """What was begun in the same turn of the loop is not in front of it."""
    await swap(wires, "a", "first")
    call = wires.execute_command("EVAL", SWAP, 1, "a", "second")

    reply = call.send(None)
    # Nothing of the loop runs meanwhile.
    with cluster.owner("a").client() as client:
        deadline = time.monotonic() + 10
        while client.get("a") != b"second":
            assert time.monotonic() < deadline

    reply._asyncio_future_blocking = False
    await asyncio.wait([reply])
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    assert ended.value.value == b"first"


async def test_a_slot_that_has_moved_is_followed(wires: Wires, cluster: Cluster) -> None:
    """And what is under way to its old master on the same connection is not given up for it."""
    old, new = cluster.servers[0], cluster.servers[1]
    other = next(key for key in map(str, range(1000)) if cluster.owner(key) is old)
    with old.client() as client:
        client.xgroup_create(other, "g", mkstream=True)
    found: list[object] = []

    async def wait() -> None:
        read = ("XREADGROUP", "GROUP", "g", "me", "BLOCK", 0, "STREAMS", other, ">")
        found.append(await wires.execute_command(*read))

    await swap(wires, KEYS[0], "there")  # it is known where that is
    with old.client() as client:
        client.delete(KEYS[0])
    for server in cluster.servers:
        set_slot(server, KEYS[0], "NODE", node_id(new))
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await _until(lambda: _blocked(old))
            group.start_soon(swap, wires, KEYS[0], "here")
            await anyio.sleep(0.05)
            # One connection: what is called behind a blocked read is executed behind it.
            with old.client() as client:
                client.xadd(other, {"a": "1"})
        refusals = _moved(old)
        assert await swap(wires, KEYS[0], "again") == b"here"
        assert _moved(old) == refusals > 0, "from then on it is known"
        assert found[0]
    finally:
        with new.client() as client:
            client.delete(KEYS[0])
        for server in cluster.servers:
            set_slot(server, KEYS[0], "NODE", node_id(old))


async def test_a_slot_on_its_way_is_asked_for_where_it_goes(wires: Wires, cluster: Cluster) -> None:
    """What stands there already is there, what does not yet is where it was."""
    old, new = cluster.servers[0], cluster.servers[1]
    await swap(wires, "{b}old", "old")
    set_slot(new, KEYS[0], "IMPORTING", node_id(old))
    set_slot(old, KEYS[0], "MIGRATING", node_id(new))
    try:
        assert await swap(wires, "{b}old", "older") == b"old"
        assert await swap(wires, "{b}new", "new") is None
        assert await swap(wires, "{b}new", "newer") == b"new"
    finally:
        for server in (old, new):
            set_slot(server, KEYS[0], "STABLE")
        with new.client() as client:
            client.flushall()


async def test_a_command_and_a_script_leave_together(wires: Wires, cluster: Cluster) -> None:
    """As a blocked read and what takes what it brings: one packet, to the master of both."""
    with cluster.owner("{c}s").client() as client:
        client.xgroup_create("{c}s", "g", mkstream=True)
        client.xadd("{c}s", {"a": "1"})
    read = ("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "BLOCK", 1000, "STREAMS", "{c}s", ">")

    found, old = await wires.execute_together(read, ("EVAL", SWAP, 1, "{c}t", "x"))
    again, refusal = await wires.execute_together(read, ("EVALSHA", "0" * 40, 1, "{c}t", "y"))

    assert found[0][0] == b"{c}s"
    assert old is None
    assert again is None
    assert isinstance(refusal, refused.NoScriptError)


@pytest.mark.slow
async def test_a_master_that_died_is_found_again(wires: Wires) -> None:
    """What was under way fails, since nobody knows whether it was executed; then it goes on."""
    with Cluster(3) as cluster:
        connection = Connection(cluster.url)
        own = connection.scripts
        assert isinstance(own, Wires)
        for key in KEYS:
            await swap(own, key, "first")
        cluster.servers[0].kill()

        with pytest.raises((refused.ConnectionError, refused.TimeoutError)):
            await swap(own, KEYS[0], "lost")
        assert await swap(own, KEYS[1], "second") == b"first"

        cluster.servers[0].restart()
        await _until_served(own, KEYS[0])
        before = connections(cluster.servers[0])
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(swap, own, KEYS[0], number)
        assert connections(cluster.servers[0]) <= before + 1, "they share one connection again"
        await connection.aclose()


@pytest.mark.slow
async def test_who_took_a_dead_masters_place_is_found() -> None:
    """Its replica is promoted; nothing but time is needed."""
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
    with Cluster(3) as cluster, RedisServer(config=settings) as replica:
        first = cluster.servers[0]
        with replica.client() as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
            await _until(lambda: client.cluster("INFO")["cluster_known_nodes"] == "4")
            client.execute_command("CLUSTER", "REPLICATE", node_id(first))
            await _until(lambda: client.info("replication")["master_link_status"] == "up")
        connection = Connection(cluster.url)
        own = connection.scripts
        assert isinstance(own, Wires)
        await swap(own, KEYS[0], "first")
        with first.client() as client:
            client.execute_command("WAIT", 1, 5000)

        first.kill()
        with replica.client() as client:
            client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        assert await _until_served(own, KEYS[0]) == b"first"
        await connection.aclose()


async def test_wires_that_were_closed_open_nothing_any_more(cluster: Cluster) -> None:
    """Whoever comes late would leave connections behind that nobody closes."""
    before = [connections(server) for server in cluster.servers]
    connection = Connection(cluster.url)
    reader = connection.new_reader(1.0)
    for key in KEYS:
        await swap(connection.scripts, key, "x")
        await swap(reader, key, "y")
    await reader.aclose()
    await connection.aclose()

    for closed in (reader, connection.scripts):
        with pytest.raises(refused.ConnectionError, match="closed by its owner"):
            await swap(closed, "a", "z")

    await _until(lambda: [connections(server) for server in cluster.servers] == before)


async def _until_served(wires: Wires, key: str) -> bytes | None:
    with anyio.fail_after(20):
        while True:
            try:
                return await swap(wires, key, "served")
            except (refused.RedisError, OSError):
                await anyio.sleep(0.05)


async def _until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


def _blocked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def _moved(server: RedisServer) -> int:
    """How often a server has said that a slot is elsewhere."""
    with server.client() as client:
        return int(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])
