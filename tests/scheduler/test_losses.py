"""prune.lua and restore.lua: what was lost is mended, what is sound is never touched."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from millstream.model.outcome import Completed, Released, Retry
from millstream.model.run import RunState
from millstream.store import losses
from millstream.store.commits import Verdict
from millstream.store.keys import LEVELS, Lane
from millstream.store.losses import BEGINNING, Pruned
from tests.store.bench import LEASE_S, LONG_S, RETENTION_S, Bench
from tests.store.states import put


async def prune(bench: Bench, count: int = 500) -> int:
    """Walk all streams of the lane to their ends; return how much was dropped."""
    dropped = 0
    for level in LEVELS:
        last = BEGINNING
        while True:
            found = await losses.prune(bench.store, bench.lane, level, last, count)
            dropped += found.dropped
            last = found.last
            if last == BEGINNING:
                break
    return dropped


async def restore(bench: Bench, *ids: str, lease_s: float = LEASE_S) -> int:
    return await losses.restore(bench.store, bench.lane, ids, lease_s, RETENTION_S)


async def lose_entries(bench: Bench, *levels: str) -> None:
    for level in levels or LEVELS:
        stream = bench.lane.stream(level)
        for entry, _ in await bench.redis.xrange(stream):
            await bench.redis.xack(stream, "workers", entry)
            await bench.redis.xdel(stream, entry)


async def everything(bench: Bench) -> dict[str, Any]:
    return await bench.snapshot()


# -- entries without a run


async def test_entries_of_runs_that_are_gone_are_dropped(bench: Bench) -> None:
    """In a lane that nobody serves they would count as waiting, and scale the fleet."""
    await bench.accept("gone", "ended", "sound")
    await bench.cancel("gone", "ended")
    await bench.expire("gone")

    assert await prune(bench) == 2
    assert await bench.waiting() == [("normal", "sound")]


async def test_a_lane_that_was_never_served_is_pruned_too(bench: Bench) -> None:
    """No worker has made its groups."""
    fresh = Bench(bench.store, Lane("fresh"))
    await fresh.accept("ended", "sound")
    await fresh.cancel("ended")

    assert await prune(fresh) == 1
    assert await fresh.redis.xlen(fresh.lane.stream("normal")) == 1


async def test_a_spare_entry_is_dropped(bench: Bench) -> None:
    """The record names the one that counts."""
    await bench.accept("r1")
    await bench.cancel("r1")
    await bench.revive("r1")
    assert len(await bench.waiting()) == 2

    assert await prune(bench) == 1
    assert len(await bench.take("w1", 5)) == 1


@pytest.mark.parametrize("state", RunState)
async def test_pruning_touches_no_run(bench: Bench, state: RunState) -> None:
    """Whatever state a run is in, its own entry is what a worker goes by."""
    await put(bench, state)
    before = await everything(bench)

    assert await prune(bench) == 0
    assert await everything(bench) == before


async def test_a_walk_meets_every_entry(bench: Bench) -> None:
    """A page at a time, from the first entry to the last."""
    await bench.accept(*(f"r{number}" for number in range(25)))
    await bench.cancel(*(f"r{number}" for number in range(0, 25, 2)))

    assert await prune(bench, count=4) == 13
    assert len(await bench.waiting()) == 12


async def test_a_stream_that_does_not_exist_has_no_entries(bench: Bench) -> None:
    """No worker has ever served this lane."""
    found = await losses.prune(bench.store, Lane("nobody"), "normal", BEGINNING, 5)

    assert found == Pruned(0, BEGINNING)


# -- runs without an entry


@pytest.mark.parametrize("state", RunState)
async def test_restoring_touches_no_sound_run(bench: Bench, state: RunState) -> None:
    await bench.renew("w1")
    await put(bench, state)
    before = await everything(bench)

    assert await restore(bench, "r1", "unknown") == 0
    assert await everything(bench) == before


async def test_a_queued_run_without_its_entry_is_queued_once(bench: Bench) -> None:
    """By however many schedulers at once."""
    await bench.accept("r1", "r2")
    await lose_entries(bench)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(restore, bench, "r1", "r2")

    assert sorted(await bench.waiting()) == [("resume", "r1"), ("resume", "r2")]
    assert {held.run_id for held in await bench.take("w1", 5)} == {"r1", "r2"}


async def test_only_its_own_entry_counts(bench: Bench) -> None:
    """An entry of the same id in another stream is another run's."""
    await bench.accept("r1")
    ((entry, _),) = await bench.redis.xrange(bench.lane.stream("normal"))
    await lose_entries(bench)
    await bench.redis.xadd(bench.lane.stream("high"), {"id": "r2"}, id=entry)

    assert await restore(bench, "r1") == 1


async def test_a_run_that_was_begun_keeps_its_attempt_and_its_journal(bench: Bench) -> None:
    """It goes on where it was; the loss is not its failure."""
    held = await bench.held("r1")
    await bench.end(held, Released())
    await lose_entries(bench)

    assert await restore(bench, "r1") == 1

    (again,) = await bench.take("w2")
    assert (again.attempt, again.crashes, again.fence) == (1, 0, 2)


async def test_a_run_that_was_to_be_cancelled_ends(bench: Bench) -> None:
    await bench.renew("w1")
    await bench.held("r1")
    await bench.cancel("r1")
    await bench.lapse("w1")
    await lose_entries(bench)

    assert await restore(bench, "r1") == 1
    assert await bench.state("r1") is RunState.CANCELLED


async def test_a_living_worker_keeps_its_run_though_the_entry_is_lost(bench: Bench) -> None:
    """Slow is not dead: it will settle the run under its fence."""
    await bench.renew("w1")
    held = await bench.held("r1")
    await lose_entries(bench)

    assert await restore(bench, "r1") == 0
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_dead_workers_run_without_an_entry_goes_on_elsewhere(bench: Bench) -> None:
    """The sweep finds what a worker held by its entries, so it would never find this one."""
    await bench.renew("w1")
    held = await bench.held("r1")
    await lose_entries(bench)
    await bench.lapse("w1")

    assert await restore(bench, "r1") == 1
    assert len(await bench.take("w2")) == 1
    assert await bench.end(held, Completed(b"1")) is Verdict.FENCED


async def test_an_owner_without_a_lease_gets_the_time_of_one_to_renew(bench: Bench) -> None:
    """The list of leases may be what was lost."""
    await bench.held("r1")
    await lose_entries(bench)

    assert await restore(bench, "r1") == 0
    assert await restore(bench, "r1") == 0
    assert await restore(bench, "r1", lease_s=0) == 1
    assert "unowned" not in await bench.fields("r1")


async def test_an_owner_that_renews_keeps_its_run(bench: Bench) -> None:
    await bench.held("r1")
    await lose_entries(bench)
    await restore(bench, "r1")
    await bench.renew("w1")

    assert await restore(bench, "r1", lease_s=0) == 0


async def test_the_time_to_renew_begins_anew_with_every_fence(bench: Bench) -> None:
    """What was noted about an earlier owner says nothing about this one."""
    await bench.redis.hset(bench.lane.run("r1"), "unowned", "1 1")
    await bench.accept("r0")
    held = await bench.take("w1")
    await bench.end(held[0], Released())
    await bench.take("w1")
    await lose_entries(bench)
    await bench.redis.hset(bench.lane.run("r0"), "unowned", "1 1")

    assert await restore(bench, "r0") == 0
    assert (await bench.fields("r0"))["unowned"].startswith("2 ")


async def test_nobodys_run_is_taken_while_the_living_renew(bench: Bench) -> None:
    """After a restart of Redis nothing is reclaimed for one lease."""
    await bench.renew("w1")
    await bench.held("r1")
    await lose_entries(bench)
    await bench.lapse("w1")
    await bench.redis.hset(bench.lane.meta, "hold", str(await bench.now_ms() + 60_000))

    assert await restore(bench, "r1") == 0


async def test_nobodys_run_is_taken_under_a_server_that_nobody_has_swept_under(
    bench: Bench,
) -> None:
    """It was started anew, or promoted, a moment ago: the hold is not set yet."""
    if bench.store.in_memory:
        pytest.skip("the in-memory store does not say which start of it this is")
    await bench.renew("w1")
    await bench.held("r1")
    await lose_entries(bench)
    await bench.lapse("w1")
    server = await bench.redis.hget(bench.lane.meta, "server")
    await bench.redis.hset(bench.lane.meta, "server", "that of before")
    assert await restore(bench, "r1") == 0

    await bench.redis.hset(bench.lane.meta, "server", server)
    assert await restore(bench, "r1") == 1


async def test_a_run_that_lost_its_timer_is_due(bench: Bench) -> None:
    """Nobody knows when it would have been; early is better than never."""
    await bench.accept("later", delay_s=LONG_S)
    await put(bench, RunState.PARKED, "parked")
    held = await bench.held("retried")
    await bench.end(held, Retry(LONG_S, "E", "m"))
    await bench.redis.delete(bench.lane.timers, bench.lane.parked)

    assert await restore(bench, "later", "parked", "retried") == 3
    assert await restore(bench, "later", "parked", "retried") == 0
    assert (await bench.sweep()).promoted == 3
    assert {held.run_id for held in await bench.take("w1", 9)} == {"later", "parked", "retried"}


async def test_the_runs_of_a_lane_are_met_page_by_page(bench: Bench) -> None:
    """All of them, and nobody else's."""
    await put(bench, RunState.COMPLETED, "ended")
    ids = {f"r{number}" for number in range(120)}
    await bench.accept(*ids)
    for other in (Lane("default", 1), Lane("default.b"), Lane("b")):
        await Bench(bench.store, other).accept("not-ours")

    met: set[str] = set()
    cursor = 0
    while True:
        page = await losses.page(bench.store, bench.lane, cursor, 20)
        met.update(page.ids)
        cursor = page.cursor
        if not cursor:
            break

    assert met == {*ids, "ended"}
