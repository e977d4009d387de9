"""Tenants share a lane: nobody's crowd keeps another one's run waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from millstream.model.outcome import Completed
from millstream.model.run import Delivery, Priority, RunState
from millstream.store import commits, layouts, listing, losses, places, runs
from millstream.store.commits import Want
from millstream.store.connection import Connection
from millstream.store.keys import FRESH, Lane
from tests.servers import RedisServer
from tests.store.bench import LEASE_S, LONG_S, RETENTION_S, Bench

_WINDOW = 16


def crowd(tenant: str, count: int) -> list[str]:
    return [f"{tenant}{number:05}" for number in range(count)]


def ids(taken: Sequence[Delivery]) -> list[str]:
    return [delivery.run_id for delivery in taken]


async def accept(bench: Bench, tenant: str, count: int, **values: Any) -> None:
    names = crowd(tenant or "none", count)
    for first in range(0, count, 500):
        await bench.accept(*names[first : first + 500], tenant=tenant, **values)


async def backlogged(bench: Bench) -> int:
    return sum([await bench.redis.zcard(bench.lane.backlog(level)) for level in FRESH])


async def end(bench: Bench, token: str, taken: Sequence[Delivery], want: Want) -> list[Delivery]:
    """End what is held and take more with the same commit, as a worker does."""
    items = [commits.ending(held, Completed(b"1"), "1", RETENTION_S) for held in taken]
    return list((await bench.commit(token, *items, want=want)).taken)


async def test_a_single_run_starts_within_one_round_of_another_ones_thousands(
    redis_server: RedisServer,
) -> None:
    """Twenty thousand runs of one tenant are ahead; the next commit takes the other one's."""
    redis_server.flush()
    store = Connection(redis_server.url)
    bench = Bench(store)
    await bench.prepare()
    await accept(bench, "a", 20_000)
    taken = await end(bench, "w1", (), Want(normal=10))
    await bench.accept("b1", tenant="b")

    assert await backlogged(bench) == 1, "of the crowd nothing left the stream"
    taken = await end(bench, "w1", taken, Want(normal=10))
    assert ids(taken)[-1] == "b1"
    assert (await runs.depth(store, bench.lane)).waiting == 20_000 - 19
    await store.aclose()


async def test_a_tenant_alone_pays_nothing(bench: Bench) -> None:
    """However many wait: no key beside those of a lane without tenants, and one stream."""
    await accept(bench, "a", 3 * _WINDOW)

    assert await bench.redis.xlen(bench.lane.stream("normal")) == 3 * _WINDOW
    assert not [key for key in await bench.keys() if "backlog" in key or "turns" in key]


async def test_a_few_runs_of_several_tenants_share_the_stream(bench: Bench) -> None:
    """Below a window nobody waits long, and nothing has to be put in order."""
    for number in range(_WINDOW):
        await bench.accept(f"r{number}", tenant="abc"[number % 3])
    assert await backlogged(bench) == 0

    await bench.accept("one more", tenant="a")
    assert await backlogged(bench) == 1


async def test_tenants_take_turns(bench: Bench) -> None:
    """A round has one run of each, whoever came first and whoever brought more."""
    await bench.accept("first", tenant="z")
    await accept(bench, "a", 40)
    await accept(bench, "b", 40)
    await accept(bench, "c", 2)
    taken = ids(await bench.take("w1", 100))[_WINDOW:]

    at = [index for index, run_id in enumerate(taken) if run_id[0] == "c"]
    assert at == [2, 5], "with its turn in the first round and in the second"
    alternating = [run_id[0] for run_id in taken[6:40]]
    assert alternating.count("a") == alternating.count("b")


async def test_who_comes_later_is_in_the_round_that_is_under_way(bench: Bench) -> None:
    """A turn is never in the past: waiting long earns nothing, and coming late costs nothing."""
    await bench.accept("first", tenant="z")
    await accept(bench, "a", 60)
    await bench.take("w1", 40)
    await bench.accept("b1", "b2", tenant="b")

    found = ids(await bench.take("w1", 24))
    # What the take before has put into the stream goes first: at most a window.
    assert "b1" in found[: _WINDOW + 2]
    assert found.index("b2") > found.index("b1")


async def test_everything_is_taken_without_a_sweep(bench: Bench) -> None:
    """Whoever takes sees to the rest: nobody has to look for it from time to time."""
    for tenant in "abc":
        await accept(bench, tenant, 40)
    taken: list[str] = []
    held: list[Delivery] = []
    while held := await end(bench, "w1", held, Want(normal=7)):
        taken += ids(held)

    assert sorted(taken) == sorted(x for tenant in "abc" for x in crowd(tenant, 40))
    assert await backlogged(bench) == 0
    assert await bench.keys() & {bench.lane.prefix + "turns"} == set()


async def test_a_worker_that_waits_is_woken_for_what_is_in_a_backlog(bench: Bench) -> None:
    """It sees streams only: as long as a backlog holds something, so does its stream."""
    for tenant in "ab":
        await accept(bench, tenant, 40)
    seen = 0
    while await backlogged(bench):
        brought = await bench.read(f"idle{seen}")
        assert brought, "an idle worker sees nothing while runs wait"
        items = [commits.adopt(stray.level, stray.entry) for stray in brought]
        reply = await bench.commit(f"idle{seen}", *items)
        seen += len(reply.taken)
    assert seen >= 80 - _WINDOW


async def test_the_levels_keep_their_order(bench: Bench) -> None:
    """A tenant's turn is one among the runs of a level, not among all."""
    await accept(bench, "a", 40, priority=Priority.LOW)
    await bench.accept("b-low", tenant="b", priority=Priority.LOW)
    await bench.accept("b-high", tenant="b", priority=Priority.HIGH)

    taken = ids((await bench.commit("w1", want=Want(high=1, low=2))).taken)
    assert taken[0] == "b-high"
    assert "b-low" in taken


async def test_the_cost_of_a_take_does_not_grow_with_the_backlogs(
    redis_server: RedisServer,
) -> None:
    """Counted in commands: ten times as many runs wait, and a take costs the same."""
    counts = []
    for crowded in (500, 5_000):
        redis_server.flush()
        store = Connection(redis_server.url)
        bench = Bench(store)
        await bench.prepare()
        await bench.accept("first", tenant="z")
        for tenant in "ab":
            await accept(bench, tenant, crowded)
        taken = await bench.take("w1", 50)
        await bench.redis.config_resetstat()
        await end(bench, "w1", taken, Want(normal=50))
        stats = await bench.redis.info("commandstats")
        counts.append(sum(row["calls"] for row in stats.values()))
        await store.aclose()

    assert counts[0] == counts[1]
    assert counts[0] < 50 * 9


# -- everybody else knows of runs in a backlog


async def crowded(bench: Bench) -> None:
    """One run, ``b1``, waits for its turn."""
    await accept(bench, "a", _WINDOW)
    await bench.accept("b1", tenant="b")
    assert await bench.redis.zscore(bench.lane.backlog("normal"), "b1") is not None


async def test_a_run_that_waits_for_its_turn_is_cancelled_at_once(bench: Bench) -> None:
    """It stands nowhere any more, and no later take meets it."""
    await crowded(bench)
    before = await runs.depth(bench.store, bench.lane)

    assert await bench.cancel("b1") == ["cancelled"]
    assert await backlogged(bench) == 0
    after = await runs.depth(bench.store, bench.lane)
    assert after.waiting == before.waiting - 1
    assert (after.added, after.gone) == (before.added, before.gone + 1), "both only grow"
    assert "b1" not in ids(await bench.take("w1", 30))


async def test_a_revived_run_takes_its_turn(bench: Bench) -> None:
    """Else a tenant could pass the others by starting old runs again."""
    held = await bench.held("b1", tenant="b")
    await accept(bench, "a", _WINDOW)
    await bench.verdict("w1", commits.ending(held, Completed(b"1"), "1", RETENTION_S))
    await bench.accept("b2", tenant="b")
    assert await bench.cancel("b2") == ["cancelled"]
    assert await bench.revive("b2") == ["queued"]

    assert await backlogged(bench) == 1
    assert "b2" in ids(await bench.take("w1", 30))


async def test_a_delayed_run_takes_its_turn_when_it_is_due(bench: Bench) -> None:
    """A crowd may also come out of the timers."""
    await accept(bench, "a", _WINDOW)
    await bench.accept("b1", tenant="b", delay_s=LONG_S)
    await bench.fall_due("b1")
    await bench.sweep()

    assert await backlogged(bench) == 1
    assert await bench.state("b1") is RunState.QUEUED


async def test_depth_counts_backlogs_and_knows_how_old_they_are(bench: Bench) -> None:
    """An autoscaler that sees only the streams would starve the queue."""
    await crowded(bench)
    await bench.redis.hset(bench.lane.run("b1"), "enqueued", "1000")

    depth = await runs.depth(bench.store, bench.lane)
    assert (depth.waiting, depth.running) == (_WINDOW + 1, 0)
    assert depth.oldest_s > 1_000_000_000


async def test_listings_find_runs_that_wait_for_their_turn(bench: Bench) -> None:
    """In both ways of looking, once each."""
    await crowded(bench)
    queued = frozenset({RunState.QUEUED})

    listed = await listing.list_runs(bench.store, bench.lane, queued, 100)
    assert [status.id for status in listed].count("b1") == 1
    where = places.states_places(queued)
    page = await places.page_of(bench.store, bench.lane, where, None, 100, lambda _: True)
    assert [status.id for status in page.runs].count("b1") == 1


async def test_a_lane_with_a_backlog_is_not_vacant(bench: Bench) -> None:
    """A worker that left an old lane would leave the runs behind."""
    old = Bench(bench.store, Lane("other", 1))
    await old.prepare()
    await crowded(old)
    await old.cancel(*crowd("a", _WINDOW))
    for level in FRESH:
        found = await losses.prune(old.store, old.lane, level, losses.BEGINNING, 100)
        assert found.dropped in {0, _WINDOW}
    await old.redis.delete(old.lane.ended)
    await old.redis.hset(Lane("other").meta, mapping={"lanes": "1", "past": "2", "epoch": "1"})

    _, in_use = await layouts.in_use(bench.store, "other")
    assert old.lane in in_use


async def test_a_sweep_wakes_a_backlog_whose_stream_was_emptied(bench: Bench) -> None:
    """Whoever takes entries away from behind, the runs beside them go on."""
    await crowded(bench)
    await bench.cancel(*crowd("a", _WINDOW))
    await losses.prune(bench.store, bench.lane, "normal", losses.BEGINNING, 100)
    assert await bench.redis.xlen(bench.lane.stream("normal")) == 0

    await bench.sweep()
    assert await bench.waiting() == [("normal", "b1")]


async def test_only_a_run_that_stands_nowhere_is_put_back(bench: Bench) -> None:
    """One that waits for its turn is not lost; one whose backlog is gone is."""
    await crowded(bench)
    assert await losses.restore(bench.store, bench.lane, ["b1"], LEASE_S, RETENTION_S) == 0

    await bench.redis.delete(bench.lane.backlog("normal"))
    assert await losses.restore(bench.store, bench.lane, ["b1"], LEASE_S, RETENTION_S) == 1
    assert ("resume", "b1") in await bench.waiting()


async def test_turns_of_tenants_that_have_none_ahead_are_forgotten(bench: Bench) -> None:
    """A queue that is never empty would keep every tenant that it ever had."""
    await bench.accept("first", tenant="z")
    await accept(bench, "a", 100)
    for number in range(20):
        await bench.accept(f"t{number}", tenant=f"t{number}")
    await bench.take("w1", 60)
    await bench.sweep()

    names = {name.decode() for name in await bench.redis.hkeys(bench.lane.prefix + "turns")}
    assert "normal:a" in names
    assert len([name for name in names if name.startswith("normal:t")]) == 0


@pytest.mark.parametrize("foreign", ["no tenant", ""])
async def test_any_name_is_a_tenant(bench: Bench, foreign: str) -> None:
    """Names come from callers, and none of them may be taken for something else."""
    await accept(bench, "a", _WINDOW)
    await bench.accept("odd", tenant=foreign)
    await bench.accept("main", tenant="main:normal")
    await bench.accept("normal", tenant="normal")

    found = ids(await bench.take("w1", 100))
    assert len(found) == _WINDOW + 3
    assert len(set(found)) == len(found)
