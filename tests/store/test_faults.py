"""When Redis says no, or nothing: a named error, nothing half-written, and it goes on afterwards.

These run on real servers only: the in-memory store has no memory to run out of, and no socket to
be silent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from millstream.errors import StoreError, StoreFull, StoreUnavailable, UnfitStore
from millstream.model.outcome import Cancelled, Completed, Failed, Parked, Refused, Released, Retry
from millstream.model.run import Delivery, RunState
from millstream.store import arrivals, commits, deliveries, leases, runs
from millstream.store.commits import Verdict, Want
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from tests.servers import RedisServer
from tests.store.bench import LONG_S, RETENTION_S, Bench, ending

PROGRAMS = ["redis-server", "valkey-server"]


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """An empty server of each kind, whose settings a test may change."""
    found: RedisServer = request.getfixturevalue(f"{request.param}_server")
    found.flush()
    yield found
    with found.client() as client:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


@pytest.fixture(params=PROGRAMS)
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of each kind that a test may kill; it keeps what it has acknowledged."""
    if not RedisServer.available(request.param):
        pytest.skip(f"{request.param} is not on PATH")
    with RedisServer(request.param, appendonly=True) as started:
        yield started


@asynccontextmanager
async def on(url: str, timeout_s: float = 5.0) -> AsyncIterator[Bench]:
    """A bench on a server that serves."""
    store = Connection(url, command_timeout_s=timeout_s)
    try:
        bench = Bench(store)
        await bench.prepare()
        yield bench
    finally:
        await store.aclose()


# -- the memory is used up


async def test_a_full_store_refuses_by_name_and_keeps_nothing_half(server: RedisServer) -> None:
    """Whatever is refused is refused whole; the same call works when there is room again."""
    async with on(server.url) as bench:
        await bench.accept(*(f"r{number}" for number in range(8)), delay_s=0)
        taken = await bench.take("w1", 8)
        held = {delivery.run_id: delivery for delivery in taken}
        await bench.accept("queued")
        outcomes = {
            "r0": Completed(b"1"), "r1": Failed("E", "m"), "r2": Cancelled(),
            "r3": Retry(LONG_S, "E", "m"), "r4": Parked(4e9, 0), "r5": Released(),
            "r6": Refused(LONG_S),
        }  # fmt: skip
        verbs: list[Callable[[], Awaitable[object]]] = [
            lambda: bench.accept("new"),
            lambda: bench.accept("late", delay_s=LONG_S),
            lambda: bench.verdict("w1", commits.journal(held["r7"], [("a", b"1")], "1")),
            lambda: bench.verdict("w1", commits.emit(held["r7"], "e", b"1", b'["n",1]', "1")),
            lambda: bench.cancel("queued"),
            lambda: bench.renew("w1"),
            bench.sweep,
        ]
        for run_id, outcome in outcomes.items():
            verbs.append(lambda r=run_id, o=outcome: bench.end(held[r], o))  # type: ignore[misc]
        await bench.redis.config_set("maxmemory", 1)
        before = await bench.snapshot()

        for verb in verbs:
            with pytest.raises(StoreFull):
                await verb()
            assert await bench.snapshot() == before

        await bench.redis.config_set("maxmemory", 0)
        for verb in verbs:
            await verb()
        assert await bench.state("new") is RunState.QUEUED
        assert await bench.state("r0") is RunState.COMPLETED
        assert await bench.journal("r7") == {"a": b"1", "e": b"1"}


async def test_a_full_store_still_gives_and_takes_whole(server: RedisServer) -> None:
    """Taking moves what is there; reading needs no room."""
    async with on(server.url) as bench:
        await bench.accept("r1")
        await bench.redis.config_set("maxmemory", 1)

        try:
            taken = await bench.take("w1")
        except StoreFull:
            taken = []

        assert (await bench.state("r1") is RunState.RUNNING) == bool(taken)
        assert len(await bench.pending()) == len(taken)
        assert (await runs.depth(bench.store, bench.lane)).running == len(taken)
        assert await runs.arguments(bench.store, bench.lane, "r1") == {}


async def test_a_full_store_starts_a_run_again_whole_or_not_at_all(server: RedisServer) -> None:
    """A run between two states would never be found again."""
    async with on(server.url) as bench:
        held = await bench.held("r1")
        await bench.end(held, Failed("E", "m"))
        await bench.redis.config_set("maxmemory", 1)
        before = await bench.snapshot()

        try:
            assert await bench.revive("r1") == ["queued"]
        except StoreFull:
            assert await bench.snapshot() == before
        else:
            assert await bench.waiting() == [("normal", "r1")]
            assert await bench.state("r1") is RunState.QUEUED


# -- a server that can never do


async def test_a_server_that_evicts_is_refused(server: RedisServer) -> None:
    """It would throw runs away when memory runs out, and say nothing."""
    store = Connection(server.url)
    await store.check()
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(UnfitStore, match=r"allkeys-lru.*noeviction"):
        await store.check()

    await store.aclose()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_server_that_does_not_permit_is_named(program: str) -> None:
    """The user, its password or its rights are wrong: no retry will mend that."""
    if not RedisServer.available(program):
        pytest.skip(f"{program} is not on PATH")
    users = [
        "user default on >topsecret ~* &* +@all",
        "user worker on >secret1 ~millstream:* &millstream:* +@all -@admin -@dangerous +info",
        "user writer on >secret2 ~millstream:* &* +@all -hset",
        "user reader on >secret3 ~millstream:* &* +@read +info +ping",
        "user blind on >secret4 ~* &* +@all -info",
        "user elsewhere on >secret5 ~other:* &* +@all",
    ]
    with RedisServer(program, acl=users, password="topsecret") as started:
        async with on(started.url_as("worker", "secret1")) as bench:
            await bench.store.check()
            held = await bench.held("r1")
            assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN

        for user, password in (("writer", "secret2"), ("reader", "secret3"), ("worker", "wrong"),
                               ("elsewhere", "secret5"), ("nobody", "wrong")):  # fmt: skip
            store = Connection(started.url_as(user, password))
            with pytest.raises(UnfitStore, match="ACL") as caught:
                await Bench(store).accept("r2")
            assert password not in str(caught.value)
            assert "topsecret" not in str(caught.value)
            await store.aclose()

        for url in (started.url_as("blind", "secret4"), f"redis://127.0.0.1:{started.port}"):
            store = Connection(url)
            with pytest.raises(UnfitStore):
                await store.check()
            await store.aclose()

        async with on(started.url) as bench:
            assert await bench.state("r2") is None


# -- a server that is away


async def test_nobody_listens(server: RedisServer) -> None:
    """The error names the address and asks the question that helps."""
    with RedisServer(server.program) as gone:
        url = gone.url
    store = Connection(url)

    for ask in (store.check, lambda: Bench(store).accept("r1"), lambda: Bench(store).renew("w1")):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:\d+.*[^.]; is it running"):
            await ask()

    await store.aclose()


async def test_a_killed_server_is_away_and_comes_back_with_everything(own: RedisServer) -> None:
    """What it acknowledged is there, held by who held it; the connection mends itself."""
    async with on(own.url) as bench:
        held = await bench.held("r1")
        await bench.accept("waiting")
        item = commits.journal(held, [("a", b"1")], "1")
        await bench.verdict("w1", item)
        before = await bench.snapshot()

        own.kill()
        with pytest.raises(StoreUnavailable):
            await bench.verdict("w1", item)
        own.restart()

        assert await bench.snapshot() == before
        assert await bench.verdict("w1", item) is Verdict.WRITTEN
        assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN
        assert [again.run_id for again in await bench.take("w1")] == ["waiting"]


async def test_after_a_restart_the_living_keep_what_they_hold(own: RedisServer) -> None:
    """Their leases ran out while the server was away: they must be heard before they are robbed."""
    async with on(own.url) as bench:
        await bench.renew("w1")
        held = await bench.held("r1")
        own.kill()
        own.restart()
        await bench.store.reset()
        await bench.lapse("w1")

        assert (await bench.sweep("w2")).reclaimed == 0

        await bench.renew("w1")
        assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_silent_server_is_away_and_what_was_sent_may_have_happened(
    own: RedisServer,
) -> None:
    """The reply was lost, the write was not: sending again is safe, and the account is settled."""
    async with on(own.url, timeout_s=0.3) as bench:
        await bench.accept("r1", "r2")
        (known,) = await bench.take("w1")
        done = ending(known, Completed(b"1"))
        own.freeze()
        with pytest.raises(StoreUnavailable):
            await bench.commit("w1", done, want=Want(normal=1))
        own.thaw()

        assert await bench.verdict("w1", done) is Verdict.WRITTEN
        own.freeze()
        with pytest.raises(StoreUnavailable):
            await bench.accept("r3")
        own.thaw()
        assert await bench.accept("r3") == [False]

        account = await deliveries.holdings(bench.store, bench.lane, "w1", [])
        (stray,) = account.strays
        _, (held,) = await bench.adopt("w1", stray.level, stray.entry)
        assert held.run_id == "r2"


async def test_a_demoted_master_is_away(own: RedisServer) -> None:
    """It answers, but takes no writes: whoever waits at it must look for the new one."""
    async with on(own.url) as bench:
        held = await bench.held("r1")
        waiting = bench.store.new_client(read_timeout_s=30)
        refused: list[Exception] = []

        async def wait() -> None:
            try:
                await arrivals.wait(bench.store, waiting, bench.lane, "w1", 30, after={})
            except StoreError as error:
                refused.append(error)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                with own.client() as client:
                    while not client.info("clients")["blocked_clients"]:
                        await anyio.sleep(0.01)
                    client.replicaof("127.0.0.1", "1")

        assert [type(error) for error in refused] == [StoreUnavailable]
        with pytest.raises(StoreUnavailable):
            await bench.accept("r2")
        with pytest.raises(StoreUnavailable):
            await bench.end(held, Completed(b"1"))

        with own.client() as client:
            client.replicaof("NO", "ONE")
        await bench.store.reset()
        assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


# -- a server on which somebody trampled


async def test_after_a_flush_a_living_worker_begins_anew(server: RedisServer) -> None:
    """All is gone, also the groups: an error that says so, and the cure is to make them again."""
    async with on(server.url) as bench:
        await bench.renew("w1")
        held = await bench.held("r1")
        await bench.redis.flushall()

        assert await bench.end(held, Completed(b"1")) is Verdict.FENCED
        assert await bench.accept("r2") == [True]
        for ask in (
            lambda: bench.take("w1"),
            lambda: arrivals.wait(bench.store, bench.redis, bench.lane, "w1", 0.01, after={}),
            lambda: deliveries.holdings(bench.store, bench.lane, "w1", []),
            lambda: bench.adopt("w1", held.level, held.entry),
        ):
            with pytest.raises(StoreError, match="NOGROUP"):
                await ask()
        await bench.renew("w1", "w2")
        assert (await runs.depth(bench.store, bench.lane)).waiting == 1
        await bench.sweep()

        await deliveries.ensure_groups(bench.store, bench.lane)
        (again,) = await bench.take("w1")
        assert await bench.end(again, Completed(b"1")) is Verdict.WRITTEN
        assert await bench.state("r1") is None


async def test_a_flush_wakes_whoever_waits_for_work(server: RedisServer) -> None:
    """It must not wait for ever at a group that is gone: work comes, or an error does."""
    async with on(server.url) as bench:
        client = bench.store.new_client(read_timeout_s=20)
        outcomes: list[object] = []

        async def wait() -> None:
            try:
                outcomes.append(
                    await arrivals.wait(bench.store, client, bench.lane, "w1", 1.0, after={})
                )
            except StoreError as error:
                outcomes.append(error)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                with server.client() as other:
                    while not other.info("clients")["blocked_clients"]:
                        await anyio.sleep(0.01)
                await bench.redis.flushall()
                await deliveries.ensure_groups(bench.store, bench.lane)
                await bench.accept("r1")

        assert len(outcomes) == 1
        (held,) = await adopt_all(bench)
        assert held.run_id == "r1"


async def adopt_all(bench: Bench) -> list[Delivery]:
    """Take what waits and adopt what was already delivered."""
    account = await deliveries.holdings(bench.store, bench.lane, "w1", [])
    found = await bench.take("w1")
    for stray in account.strays:
        found += (await bench.adopt("w1", stray.level, stray.entry))[1]
    return found


async def test_a_foreign_key_in_the_way_of_a_run_spoils_that_run_only(server: RedisServer) -> None:
    """Somebody else's string where a record should be: its answer says so."""
    async with on(server.url) as bench:
        await bench.redis.set(bench.lane.run("r1"), "mine")

        assert await bench.accept("r1", "r2") == [runs.OCCUPIED, True]
        assert [held.run_id for held in await bench.take("w1")] == ["r2"]
        assert await bench.redis.get(bench.lane.run("r1")) == b"mine"


async def test_a_foreign_key_in_the_way_of_a_stream_loses_no_write(server: RedisServer) -> None:
    """Taking fails; what was to be written is written, and can be sent again without a want."""
    async with on(server.url) as bench:
        held = await bench.held("r1")
        done = ending(held, Completed(b"1"))
        await bench.redis.delete(bench.lane.stream("low"))
        await bench.redis.set(bench.lane.stream("low"), "mine")

        with pytest.raises(StoreError, match="WRONGTYPE"):
            await bench.commit("w1", done, want=Want(normal=1))

        assert await bench.verdict("w1", done) is Verdict.WRITTEN
        assert await bench.state("r1") is RunState.COMPLETED
        assert await bench.redis.xlen(bench.lane.stream("normal")) == 0


async def test_a_hand_back_needs_nothing_but_its_level(server: RedisServer) -> None:
    """A worker that drains must get rid of what it has, whatever else is broken."""
    async with on(server.url) as bench:
        await bench.accept("r1")
        (stray,) = await bench.read("w1")
        await bench.redis.delete(bench.lane.stream("low"))

        back = commits.hand_back(stray.level, stray.entry, RETENTION_S)
        assert await bench.verdict("w1", back) is Verdict.WRITTEN


async def test_a_thread_is_told_the_same_errors(own: RedisServer) -> None:
    """The renewer decides by them whether to go on trying."""
    store = Connection(own.url)
    client = store.new_threaded_client(1.0)
    bench = Bench(store)
    leases.renew_blocking(store, client, [bench.lane], "w1", 1)
    with own.client() as other:
        other.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            leases.renew_blocking(store, client, [bench.lane], "w1", 1)
        other.config_set("maxmemory", 0)

    own.kill()
    with pytest.raises(StoreUnavailable):
        leases.renew_blocking(store, client, [bench.lane], "w1", 1)
    own.restart()

    assert leases.renew_blocking(store, client, [bench.lane], "w1", 1).now > 0
    client.close()
    await store.aclose()


async def test_who_comes_when_all_connections_are_in_use_waits(redis_server: RedisServer) -> None:
    """A thousand questions in one moment: each is answered, and Redis is not taken to be away."""
    redis_server.flush()
    store = Connection(redis_server.url)
    try:
        with redis_server.client() as client:
            before = int(client.info("stats")["total_connections_received"])
            async with anyio.create_task_group() as group:
                for number in range(1000):
                    group.start_soon(runs.status, store, Lane("default", 0), f"r{number}")
            after = int(client.info("stats")["total_connections_received"])
    finally:
        await store.aclose()

    assert after - before <= 101
