"""renew.lua and the hold of sweep.lua: who may be thought dead, and when nobody may.

Time is not waited for: what the clock has done is written where the scripts remember it.
"""

from __future__ import annotations

import pytest

from millstream.model.outcome import Completed
from millstream.model.run import RunState
from millstream.store import leases
from millstream.store.commits import Verdict
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from tests.servers import RedisServer
from tests.store.bench import LEASE_S, LONG_S, Bench


async def lapsed(bench: Bench, token: str, lease_s: float = LEASE_S) -> bool:
    return (await leases.renew(bench.store, [bench.lane], token, lease_s)).lapsed


async def orphan(bench: Bench) -> None:
    """A run whose worker is gone."""
    await bench.renew("w1")
    await bench.held("r1")
    await bench.lapse("w1")


async def restart(bench: Bench) -> None:
    """Let the server pass for another one: it was started anew, or was a replica until now."""
    if bench.store.in_memory:
        # It does not say which start of it this is, but it has forgotten all scripts.
        await bench.redis.script_flush()
    else:
        await bench.redis.hset(bench.lane.meta, "server", "that of before")


async def test_a_renewal_sets_the_lease_by_the_clock_of_the_store(bench: Bench) -> None:
    """The worker's own clock may be wrong by hours."""
    before = await bench.now_ms()
    renewal = await leases.renew(bench.store, [bench.lane], "w1", 7.5)

    assert before <= renewal.now * 1000 <= await bench.now_ms()
    score = await bench.redis.zscore(bench.lane.leases, "w1")
    assert score == pytest.approx(renewal.now * 1000 + 7500)


async def test_a_renewal_says_whether_the_lease_had_lapsed(bench: Bench) -> None:
    """Then others may have taken what the process holds, and it has to ask."""
    assert await lapsed(bench, "w1") is True
    assert await lapsed(bench, "w1") is False
    await bench.lapse("w1")
    assert await lapsed(bench, "w1") is True
    assert await lapsed(bench, "w1") is False


async def test_a_renewal_in_several_lanes_has_lapsed_when_one_has(bench: Bench) -> None:
    """One lane may have been swept while another was not."""
    other = Bench(bench.store, type(bench.lane)("other"))
    await bench.renew("w1")

    renewal = await leases.renew(bench.store, [bench.lane, other.lane], "w1", LEASE_S)

    assert renewal.lapsed
    assert await bench.redis.zscore(other.lane.leases, "w1") is not None


async def test_a_thread_renews_with_a_client_of_its_own(bench: Bench) -> None:
    """It must not depend on an event loop that may be blocked."""
    client = bench.store.new_threaded_client(1.0)
    try:
        first = leases.renew_blocking(bench.store, client, [bench.lane], "w1", LEASE_S)
        second = leases.renew_blocking(bench.store, client, [bench.lane], "w1", LEASE_S)
    finally:
        client.close()

    assert (first.lapsed, second.lapsed) == (True, False)
    assert await lapsed(bench, "w1") is False


async def test_a_renewal_gives_nothing_back(bench: Bench) -> None:
    """What was reclaimed in the meantime belongs to others."""
    await bench.renew("w1")
    held = await bench.held("r1")
    await bench.lapse("w1")
    await bench.sweep()

    await bench.renew("w1")

    assert await bench.end(held, Completed(b"1")) is Verdict.FENCED


async def test_a_renewal_before_the_sweep_keeps_everything(bench: Bench) -> None:
    """Late, but nobody had looked: the runs go on where they are."""
    await orphan(bench)

    await bench.renew("w1")

    assert (await bench.sweep()).reclaimed == 0
    assert await bench.state("r1") is RunState.RUNNING


async def test_whoever_resigns_need_not_be_waited_for(bench: Bench) -> None:
    """A worker that could not release everything at its end says that it is gone."""
    await bench.renew("w1")
    await bench.held("r1")

    await leases.resign(bench.store, bench.lane, "w1")
    await leases.resign(bench.store, bench.lane, "unknown")

    assert (await bench.sweep()).reclaimed == 1
    assert await bench.redis.zscore(bench.lane.leases, "unknown") is None


async def test_after_a_restart_nobody_reclaims_for_one_lease(bench: Bench) -> None:
    """The server was away, so the living could not renew: they come first."""
    await orphan(bench)
    await restart(bench)

    assert (await bench.sweep()).reclaimed == 0
    assert (await bench.sweep()).reclaimed == 0
    assert await bench.state("r1") is RunState.RUNNING

    hold = float(await bench.redis.hget(bench.lane.meta, "hold"))
    assert 0 < hold - await bench.now_ms() <= LEASE_S * 1000
    await bench.redis.hset(bench.lane.meta, "hold", await bench.now_ms())  # the lease has passed
    assert (await bench.sweep()).reclaimed == 1


async def test_a_server_that_has_forgotten_its_scripts_has_not_restarted(bench: Bench) -> None:
    """From 7.4 on Redis throws scripts away when others send many: that is no reason to hold."""
    if bench.store.in_memory:
        pytest.skip("the in-memory store does not say which start of it this is")
    await orphan(bench)
    await bench.redis.script_flush()

    assert (await bench.sweep()).reclaimed == 1


async def test_every_lane_holds_after_a_restart() -> None:
    """Who sweeps first teaches the server the script, and that says nothing of other lanes."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    lanes = [Lane("default", number) for number in range(3)]
    with RedisServer(appendonly=True) as server:
        before, after = Connection(server.url), Connection(server.url)
        for lane in lanes:
            bench = Bench(before, lane)
            await bench.prepare()
            await orphan(bench)
        server.restart()
        for lane in lanes:
            bench = Bench(after, lane)
            # So quickly that nobody missed a sweep.
            await bench.redis.hset(lane.meta, "swept", await bench.now_ms())
            assert (await bench.sweep()).reclaimed == 0
            assert await bench.state("r1") is RunState.RUNNING
        await before.aclose()
        await after.aclose()


async def test_what_is_due_goes_on_during_a_hold(bench: Bench) -> None:
    """A timer needs nobody's lease."""
    await bench.accept("r1", delay_s=LONG_S)
    await bench.fall_due("r1")
    await restart(bench)

    assert (await bench.sweep()).promoted == 1


@pytest.mark.parametrize("gap_s", [LEASE_S * 0.6, LEASE_S * 100])
async def test_after_a_gap_nobody_reclaims_for_one_lease(bench: Bench, gap_s: float) -> None:
    """Nobody swept: Redis was away or its clock jumped ahead, and nobody can have renewed."""
    await orphan(bench)
    swept = await bench.now_ms() - round(gap_s * 1000)
    await bench.redis.hset(bench.lane.meta, "swept", swept)

    assert (await bench.sweep()).reclaimed == 0

    hold = float(await bench.redis.hget(bench.lane.meta, "hold"))
    assert 0 < hold - await bench.now_ms() <= LEASE_S * 1000


async def test_a_short_gap_is_no_reason_to_hold(bench: Bench) -> None:
    """Sweeps come late under load; that must not delay recovery."""
    await orphan(bench)
    swept = await bench.now_ms() - round(LEASE_S * 400)
    await bench.redis.hset(bench.lane.meta, "swept", swept)

    assert (await bench.sweep()).reclaimed == 1


async def test_after_the_clock_went_back_nobody_reclaims_for_one_lease(bench: Bench) -> None:
    """The last sweep seems to lie ahead."""
    await orphan(bench)
    await bench.redis.hset(bench.lane.meta, "swept", await bench.now_ms() + 3_600_000)

    assert (await bench.sweep(interval_s=1)).reclaimed == 0

    assert float(await bench.redis.hget(bench.lane.meta, "swept")) <= await bench.now_ms()
    hold = float(await bench.redis.hget(bench.lane.meta, "hold"))
    assert 0 < hold - await bench.now_ms() <= LEASE_S * 1000


async def test_a_hold_never_lasts_longer_than_a_lease(bench: Bench) -> None:
    """One that was set before the clock went back would keep recovery off for that time."""
    await orphan(bench)
    await bench.redis.hset(bench.lane.meta, "hold", await bench.now_ms() + 86_400_000)

    await bench.sweep()

    hold = float(await bench.redis.hget(bench.lane.meta, "hold"))
    assert hold - await bench.now_ms() <= LEASE_S * 1000


async def test_a_lease_from_before_the_clock_went_back_is_shortened(bench: Bench) -> None:
    """Its worker may be dead; it would stay alive for as long as the clock was ahead."""
    await bench.redis.zadd(bench.lane.leases, {"w1": await bench.now_ms() + 86_400_000})

    await bench.sweep()

    left = await bench.redis.zscore(bench.lane.leases, "w1") - await bench.now_ms()
    assert 0 < left <= LEASE_S * 1000
