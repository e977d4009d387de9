"""Calls to a cluster go to the master that has their keys, on one connection each.

The cluster is a real one, of three masters; slots are moved in it as an operator moves them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

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


pytestmark = pytest.mark.skipif(
    not RedisServer.available("redis-server"), reason="redis-server is not on PATH"
)


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        assert [cluster.servers.index(cluster.owner(key)) for key in KEYS] == [0, 1, 2]
        yield cluster


@pytest.fixture
def cluster(servers: Cluster) -> Cluster:
    """As good as new."""
    servers.flush()
    return servers


@pytest.fixture
async def wires(cluster: Cluster) -> AsyncIterator[Wires]:
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
    old = cluster.servers[0]
    other = next(key for key in map(str, range(1000)) if cluster.owner(key) is old)
    await swap(wires, KEYS[0], "there")  # it is known where that is
    found: list[object] = []

    async def wait() -> None:
        read = ("XREADGROUP", "GROUP", "g", "me", "BLOCK", 0, "STREAMS", other, ">")
        found.append(await wires.execute_command(*read))

    async with moved(cluster, KEYS[0]) as new, anyio.create_task_group() as group:
        refusals = _moved(old)
        with old.client() as client:
            client.xgroup_create(other, "g", mkstream=True)
        # In one turn of the loop, so that the read is under way when the refusal comes.
        group.start_soon(swap, wires, KEYS[0], "here")
        group.start_soon(wait)
        await _until(lambda: _holds(new, KEYS[0], b"here"))
        assert not found
        assert await swap(wires, KEYS[0], "again") == b"here"
        assert _moved(old) == refusals + 1, "from then on it is known"
        with old.client() as client:
            client.xadd(other, {"a": "1"})
    assert found[0]


async def test_many_calls_to_slots_that_have_moved_disturb_nobody(
    wires: Wires, cluster: Cluster
) -> None:
    """Each is sent to who has its slot, on the one connection to that one."""
    for key in KEYS:
        await swap(wires, key, "there")
    answers: list[bytes | None] = []

    async def ask(key: str) -> None:
        answers.append(await swap(wires, key, "here"))

    async with moved(cluster, KEYS[0]) as new:
        before = connections(new)
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, KEYS[0])
                group.start_soon(ask, f"{{{KEYS[0]}}}{number}")
                group.start_soon(ask, KEYS[1])
        assert len(answers) == 150
        assert connections(new) == before


async def test_a_slot_on_its_way_is_asked_for_where_it_goes(wires: Wires, cluster: Cluster) -> None:
    """What stands there already is there, what does not yet is where it was; by many at once."""
    old, new = cluster.servers[0], cluster.servers[1]
    await swap(wires, "{b}old", "old")
    answers: list[bytes | None] = []

    async def ask(number: int) -> None:
        await swap(wires, f"{{b}}new{number}", number)
        answers.append(await swap(wires, f"{{b}}new{number}", "newer"))

    set_slot(new, KEYS[0], "IMPORTING", node_id(old))
    set_slot(old, KEYS[0], "MIGRATING", node_id(new))
    try:
        assert await swap(wires, "{b}old", "older") == b"old"
        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(ask, number)
        assert sorted(answers, key=str) == sorted((b"%d" % n for n in range(30)), key=str)
        assert _holds(new, "{b}new7", b"newer", asking=True)
    finally:
        for server in (old, new):
            set_slot(server, KEYS[0], "STABLE")
        new.flush()


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


async def test_what_leaves_together_follows_its_slot(wires: Wires, cluster: Cluster) -> None:
    """The command that waits is sent on; the script behind it is left to whoever calls it again."""
    key = f"{{{KEYS[0]}}}s"
    await swap(wires, KEYS[0], "there")
    async with moved(cluster, KEYS[0]) as new:
        with new.client() as client:
            client.xgroup_create(key, "g", mkstream=True)
            client.xadd(key, {"a": "1"})
        read = ("XREADGROUP", "GROUP", "g", "me", "COUNT", 1, "BLOCK", 1, "STREAMS", key, ">")
        script = ("EVAL", SWAP, 1, KEYS[0], "x")

        found, left_out = await wires.execute_together(read, script)
        assert found[0][0] == key.encode()
        assert isinstance(left_out, refused.MovedError)
        assert not _holds(new, KEYS[0], b"x")

        assert await wires.execute_together(read, script) == [None, None]
        assert _holds(new, KEYS[0], b"x")


@pytest.mark.slow
async def test_a_master_that_is_away_holds_up_nobody_else() -> None:
    """Neither who knows the cluster already nor who has just come."""
    with Cluster(3) as cluster:
        _serve_without_one(cluster)
        async with calls_to(cluster) as known, calls_to(cluster) as new:
            for key in KEYS:
                await swap(known, key, "first")
            cluster.servers[0].kill()

            for wires in (known, new):
                for _ in range(3):
                    with pytest.raises(
                        (refused.RedisError, refused.RedisClusterException, OSError)
                    ):
                        await swap(wires, KEYS[0], "lost")
                    assert await swap(wires, KEYS[1], "x") is not None
                    assert await swap(wires, KEYS[2], "x") is not None


async def test_a_call_whose_connection_is_cut_is_not_sent_again(
    wires: Wires, cluster: Cluster
) -> None:
    """Nobody knows whether it was executed; the next one finds its way."""
    master = cluster.servers[0]
    with master.client() as client:
        client.xgroup_create("s{b}", "g", mkstream=True)
    read = ("XREADGROUP", "GROUP", "g", "me", "BLOCK", 0, "STREAMS", "s{b}", ">")

    async def cut() -> None:
        await _until(lambda: _blocked(master))
        with master.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)

    with anyio.fail_after(20):
        for send in (wires.execute_command(*read), wires.execute_together(read)):
            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                outcome = (await asyncio.gather(send, return_exceptions=True))[0]
            lost = outcome[0] if isinstance(outcome, list) else outcome
            assert isinstance(lost, refused.ConnectionError)
            assert await swap(wires, KEYS[0], "served") in {None, b"served"}


@pytest.mark.slow
async def test_a_master_that_died_is_found_again() -> None:
    """What was under way fails, since nobody knows whether it was executed; then it goes on."""
    with Cluster(3) as cluster:
        async with calls_to(cluster) as wires:
            for key in KEYS:
                await swap(wires, key, "first")
            with cluster.servers[0].client() as client:
                client.xgroup_create("b{b}", "g", mkstream=True)
            failed: list[BaseException] = []

            async def wait() -> None:
                read = ("XREADGROUP", "GROUP", "g", "me", "BLOCK", 0, "STREAMS", "b{b}", ">")
                with pytest.raises(refused.ConnectionError) as caught:
                    await wires.execute_command(*read)
                failed.append(caught.value)

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await _until(lambda: _blocked(cluster.servers[0]))
                cluster.servers[0].kill()
            assert failed

            cluster.servers[0].restart()
            await _until_served(wires, KEYS[0])
            before = connections(cluster.servers[0])
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(swap, wires, KEYS[0], number)
            assert connections(cluster.servers[0]) == before, "they share one connection again"


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
        async with calls_to(cluster) as wires:
            await swap(wires, KEYS[0], "first")
            with first.client() as client:
                client.set("{b}mark", "here")  # WAIT is about the writes of its own connection
                client.execute_command("WAIT", 1, 5000)

            first.kill()
            with replica.client() as client:
                client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
            assert await _until_served(wires, KEYS[0]) == b"first"


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


@pytest.mark.parametrize("turns", range(0, 12, 3))
async def test_wires_that_are_closed_while_they_open_leave_nothing(
    cluster: Cluster, turns: int
) -> None:
    """Whatever the first call waits for in that moment."""
    before = [connections(server) for server in cluster.servers]
    connection = Connection(cluster.url)

    async def ask() -> None:
        with contextlib.suppress(refused.ConnectionError):
            await swap(connection.scripts, KEYS[0], "x")

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        for _ in range(turns):
            await anyio.sleep(0.0005)
        await connection.aclose()

    await _until(lambda: [connections(server) for server in cluster.servers] == before)


@pytest.mark.slow
async def test_a_master_that_hangs_holds_up_nobody_else() -> None:
    """It is stopped, not closed: whoever waits for it waits for long."""
    with Cluster(3) as cluster:
        _serve_without_one(cluster)
        cluster.servers[0].freeze()
        try:
            async with calls_to(cluster) as wires:
                # Nothing to measure by: waiting for it each time would take minutes.
                for _ in range(50):
                    assert await swap(wires, KEYS[1], "x") in {None, b"x"}
                    assert await swap(wires, KEYS[2], "x") in {None, b"x"}
        finally:
            cluster.servers[0].thaw()


async def test_a_master_that_is_cut_off_from_the_others_is_asked_about(cluster: Cluster) -> None:
    """It answers that the cluster is down; another one may have its slots by now."""
    async with calls_to(cluster) as wires:
        await swap(wires, KEYS[0], "there")
        old = cluster.servers[0]
        with old.client() as client:
            client.delete(KEYS[0])
            slot = client.execute_command("CLUSTER", "KEYSLOT", KEYS[0])
            client.execute_command("CLUSTER", "DELSLOTS", slot)
        try:
            before = _questions(cluster)
            with pytest.raises(refused.ClusterDownError):
                await swap(wires, KEYS[0], "x")
            with contextlib.suppress(refused.RedisError):
                await swap(wires, KEYS[0], "x")
            assert _questions(cluster) == before + 1
        finally:
            with old.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", slot)
            await _until(lambda: _stands(cluster))


@pytest.mark.slow
async def test_a_slot_goes_to_a_master_that_has_none_yet(cluster: Cluster) -> None:
    """As the first does when a master is added: the cluster does not name it among its masters."""
    settings = {"cluster-enabled": "yes"}
    with RedisServer(config=settings) as new:
        old = cluster.servers[0]
        with old.client() as client:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", new.port)
        await _until(lambda: _stands(cluster, new) and _knows(old, new))
        async with calls_to(cluster) as wires:
            await swap(wires, KEYS[1], "there")
            set_slot(new, KEYS[0], "IMPORTING", node_id(old))
            set_slot(old, KEYS[0], "MIGRATING", node_id(new))
            try:
                assert await swap(wires, KEYS[0], "here") is None
                assert await swap(wires, KEYS[0], "still") == b"here"
                assert _holds(new, KEYS[0], b"still", asking=True)
            finally:
                for server in (old, new):
                    set_slot(server, KEYS[0], "STABLE")
                gone = node_id(new)
                for server in cluster.servers:
                    with server.client() as client, contextlib.suppress(refused.ResponseError):
                        client.execute_command("CLUSTER", "FORGET", gone)


@contextlib.asynccontextmanager
async def calls_to(cluster: Cluster) -> AsyncIterator[Wires]:
    """Calls to a cluster, until the end of the block."""
    connection = Connection(cluster.url)
    assert isinstance(connection.scripts, Wires)
    try:
        yield connection.scripts
    finally:
        await connection.aclose()


@contextlib.asynccontextmanager
async def moved(cluster: Cluster, key: str) -> AsyncIterator[RedisServer]:
    """Have another master than before own the slot of a key, which is empty before and after."""
    old = cluster.owner(key)
    new = next(server for server in cluster.servers if server is not old)
    with old.client() as client:
        client.flushall()
    for server in cluster.servers:
        set_slot(server, key, "NODE", node_id(new))
    try:
        yield new
    finally:
        with new.client() as client:
            client.flushall()
        for server in cluster.servers:
            set_slot(server, key, "NODE", node_id(old))


async def _until_served(wires: Wires, key: str) -> bytes | None:
    with anyio.fail_after(20):
        while True:
            try:
                return await swap(wires, key, "served")
            except (refused.RedisError, refused.RedisClusterException, OSError):
                await anyio.sleep(0.05)


async def _until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


def _holds(server: RedisServer, key: str, value: bytes, *, asking: bool = False) -> bool:
    with server.client() as client:
        if asking:
            client.execute_command("ASKING")
        return bool(client.get(key) == value)


def _blocked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def _moved(server: RedisServer) -> int:
    """How often a server has said that a slot is elsewhere."""
    with server.client() as client:
        return int(client.info("errorstats").get("errorstat_MOVED", {"count": 0})["count"])


def _serve_without_one(cluster: Cluster) -> None:
    """Have every master serve what it has, also when another one is away."""
    for server in cluster.servers:
        with server.client() as client:
            client.config_set("cluster-require-full-coverage", "no")


def _questions(cluster: Cluster) -> int:
    """How often somebody has asked the cluster who has which slots."""
    stats = []
    for server in cluster.servers:
        with server.client() as client:
            stats.append(client.info("commandstats").get("cmdstat_cluster|slots", {"calls": 0}))
    return sum(int(each["calls"]) for each in stats)


def _knows(server: RedisServer, other: RedisServer) -> bool:
    with server.client() as client:
        return node_id(other) in str(client.cluster("NODES"))


def _stands(cluster: Cluster, *more: RedisServer) -> bool:
    """Whether everybody knows who has every slot."""
    for server in (*cluster.servers, *more):
        with server.client() as client:
            said = client.cluster("INFO")
            if (said["cluster_state"], said["cluster_slots_assigned"]) != ("ok", "16384"):
                return False
    return True
