"""A cluster is as fit as the least fit of its masters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millstream.errors import ConfigError, StoreError, StoreUnavailable, UnfitStore
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import call
from tests.arranged import Cluster
from tests.servers import RedisServer


@pytest.fixture(scope="module", params=[1, 3])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with Cluster(request.param) as cluster:
        yield cluster


async def test_every_master_is_looked_at(cluster: Cluster) -> None:
    """The runs of whichever lane stands on the one that evicts would be lost."""
    connection = Connection(cluster.url)
    await connection.check()

    for server in cluster.servers:
        with server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UnfitStore, match="evicts keys"):
            await connection.check()
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
    await connection.check()
    await connection.aclose()


async def test_a_cluster_that_is_away_is_a_store_that_is_away() -> None:
    """Its library has an error of its own for that, which no loop that insists would know."""
    connection = Connection("redis+cluster://127.0.0.1:1")

    with pytest.raises(StoreUnavailable, match="cannot reach Redis"):
        await connection.check()

    await connection.aclose()


def test_a_library_that_is_too_old_for_clusters_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail at the first result, in the middle of a program."""
    import redis.asyncio

    monkeypatch.delattr(redis.asyncio.RedisCluster, "pubsub")

    with pytest.raises(ConfigError, match="redis>=8"):
        Connection("redis+cluster://127.0.0.1:1")


async def test_commands_and_scripts_go_side_by_side(cluster: Cluster) -> None:
    """What has found the way for a script has not yet learned what redis-py's commands need."""
    connection = Connection(cluster.url)
    for number in range(10):
        set_it = ("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", 1, number, "here")
        await connection.scripts.execute_command(*set_it)
        assert await connection.client.get(number) == b"here"
        assert await connection.client.execute_command("GET", number) == b"here"
    await connection.aclose()


async def test_a_wrong_password_is_no_cluster_that_is_away(cluster: Cluster) -> None:
    """Whoever insists would insist for ever."""
    connection = Connection(cluster.url.replace("://", "://nobody:wrong@"))
    lane = Lane("default")

    with pytest.raises(UnfitStore, match="check the user, its password"):
        await connection.check()
    with pytest.raises(UnfitStore, match="check the user, its password"), connection.translated():
        await call(connection.scripts, "vacant", lane, [])
    await connection.aclose()


async def test_a_server_alone_is_no_cluster(redis_server: RedisServer) -> None:
    connection = Connection(f"redis+cluster://127.0.0.1:{redis_server.port}")
    with pytest.raises(StoreError, match="cluster support disabled") as caught:
        await connection.check()
    assert not isinstance(caught.value, StoreUnavailable)
    await connection.aclose()
