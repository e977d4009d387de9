"""sweep.lua: what is due goes on, and what dead workers held goes on elsewhere, once."""

from __future__ import annotations

import msgspec
import pytest

from millstream.model.limits import Limits
from millstream.model.outcome import Cancelled, Completed, Outcome, Parked, Released, Retry
from millstream.model.run import Delivery, Priority, RunState
from millstream.store import agents, commits, listing, runs
from millstream.store.agents import Agent
from millstream.store.commits import Verdict
from tests.store.bench import LEASE_S, LONG_S, Bench
from tests.store.states import put


async def lost(bench: Bench, run_id: str = "r1", token: str = "w1") -> Delivery:
    """A run whose worker is gone."""
    await bench.renew(token)
    held = await bench.held(run_id, token)
    await bench.lapse(token)
    return held


async def test_one_at_a_time_does_the_work(bench: Bench) -> None:
    """However many workers there are, the lane is looked after once an interval."""
    await lost(bench)
    assert (await bench.sweep(interval_s=LONG_S)).reclaimed == 0
    assert (await bench.sweep("another", interval_s=LONG_S)).reclaimed == 0

    assert (await bench.sweep(interval_s=0)).reclaimed == 1


async def test_what_is_due_does_not_wait_for_the_interval(bench: Bench) -> None:
    """A sleep of a hundred milliseconds must not last as long as the pause between sweeps."""
    await put(bench, RunState.PARKED)
    assert (await bench.sweep(interval_s=LONG_S)).promoted == 0
    await bench.fall_due("r1")

    assert (await bench.sweep(interval_s=LONG_S)).promoted == 1

    assert await bench.state("r1") is RunState.QUEUED


async def test_the_sweeper_is_told_when_to_come_back(bench: Bench) -> None:
    """The earlier of the timers and the parked; none when nothing waits."""
    assert (await bench.sweep()).next_due is None
    await bench.accept("r1", delay_s=LONG_S)
    first = (await bench.sweep()).next_due
    assert first is not None
    assert first * 1000 == await bench.redis.zscore(bench.lane.timers, "r1")

    held = await bench.held("r2")
    await bench.end(held, Parked(first - 5, 0))

    for interval_s in (0, LONG_S):
        assert (await bench.sweep(interval_s=interval_s)).next_due == pytest.approx(first - 5)


async def test_new_runs_keep_their_priority_and_begun_ones_come_first(bench: Bench) -> None:
    """A delay changes when a run is queued, not how."""
    await bench.accept("new", delay_s=LONG_S, priority=Priority.HIGH)
    await bench.accept("plain", delay_s=LONG_S)
    begun = await bench.held("begun", priority=Priority.LOW)
    await bench.end(begun, Retry(LONG_S, "E", "m"))
    await bench.fall_due("new", "plain", "begun")

    assert (await bench.sweep()).promoted == 3

    assert await bench.waiting() == [("resume", "begun"), ("high", "new"), ("normal", "plain")]
    assert await bench.redis.zcard(bench.lane.timers) == 0


async def test_a_sweep_promotes_a_bounded_number(bench: Bench) -> None:
    """A flood of timers must not block the server; the next sweep follows at once."""
    ids = [f"r{number}" for number in range(450)]
    await bench.accept(*ids, delay_s=LONG_S)
    await bench.fall_due(*ids)

    promoted = [(await bench.sweep(interval_s=LONG_S)).promoted for _ in range(4)]

    assert promoted == [200, 200, 50, 0]


async def test_an_index_entry_without_its_run_is_dropped(bench: Bench) -> None:
    """A left-over must not be found again by every sweep."""
    await bench.redis.zadd(bench.lane.timers, {"ghost": 1})
    await bench.redis.zadd(bench.lane.parked, {"ghost": 1})

    assert (await bench.sweep()).promoted == 0

    assert (await bench.sweep()).next_due is None
    assert await bench.waiting() == []


async def test_slow_is_not_dead(bench: Bench) -> None:
    """While the lease holds nothing is taken away, however long the run takes."""
    await bench.renew("w1")
    held = await bench.held("r1")

    assert (await bench.sweep()).reclaimed == 0

    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_run_of_a_lost_worker_goes_on_elsewhere(bench: Bench) -> None:
    """It resumes after its last record, and remembers that a worker died."""
    await bench.renew("w1", "w2")
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("a", b"1")], "1"))
    await bench.lapse("w1")

    swept = await bench.sweep("w2")

    assert (swept.reclaimed, swept.poisoned) == (1, 0)
    assert await bench.waiting() == [("resume", "r1")]
    (again,) = await bench.take("w2")
    assert (again.fence, again.attempt, again.crashes, again.records) == (2, 1, 1, 1)
    assert await bench.verdict("w1", commits.journal(held, [("b", b"2")], "1")) is Verdict.FENCED
    assert await bench.journal("r1") == {"a": b"1"}


async def test_what_was_delivered_but_never_begun_is_no_crash(bench: Bench) -> None:
    """The worker died before it looked at the run: the run is not to blame."""
    await bench.accept("r1")
    await bench.renew("w1")
    await bench.read("w1")
    await bench.lapse("w1")

    assert (await bench.sweep()).reclaimed == 1

    (again,) = await bench.take("w2")
    assert (again.crashes, again.fence) == (0, 1)


async def test_nobody_reclaims_from_itself(bench: Bench) -> None:
    """Whoever sweeps is alive, whatever its lease says; it has to renew, not to die."""
    held = await lost(bench, token="w1")

    assert (await bench.sweep("w1")).reclaimed == 0

    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_run_that_moved_on_is_not_reclaimed_from_its_new_holder(bench: Bench) -> None:
    """The lease of the first is gone, but the run has been released and taken since."""
    old = await lost(bench)
    await bench.end(old, Released())
    (held,) = await bench.take("w2")
    await bench.renew("w2")

    assert (await bench.sweep()).reclaimed == 0

    assert await bench.end(held, Completed(b"1"), "w2") is Verdict.WRITTEN


async def test_an_entry_in_dead_hands_is_no_right_to_the_run(bench: Bench) -> None:
    """Somebody claimed the entry by hand for a worker that is gone; the holder is another."""
    await bench.renew("w1", "gone")
    held = await bench.held("r1")
    await bench.redis.xclaim(bench.lane.stream(held.level), "workers", "gone", 0, [held.entry])
    await bench.lapse("gone")

    assert (await bench.sweep()).reclaimed == 0

    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_run_is_reclaimed_once_though_it_was_delivered_twice(bench: Bench) -> None:
    """A spare entry of the run counts no second crash, and makes no second entry."""
    await bench.renew("w1")
    await bench.accept("r1")
    (first,) = await bench.read("w1")
    await bench.cancel("r1")
    await bench.revive("r1")
    (second,) = await bench.read("w1")
    await bench.adopt("w1", second.level, second.entry)
    assert [entry for _, entry, _ in await bench.pending()] == [first.entry, second.entry]
    await bench.lapse("w1")

    await bench.sweep()

    assert await bench.pending() == []
    assert await bench.waiting() == [("resume", "r1")]
    assert (await bench.fields("r1"))["crashes"] == "1"


async def test_a_spare_entry_in_dead_hands_makes_no_second_entry(bench: Bench) -> None:
    """The run waits under its other entry; a third would be read, and counted, for nothing."""
    await bench.accept("r1")
    await bench.renew("w1")
    await bench.read("w1")
    await bench.cancel("r1")
    await bench.revive("r1")
    await bench.lapse("w1")

    assert (await bench.sweep()).reclaimed == 0

    assert await bench.waiting() == [("normal", "r1")]


async def test_a_run_that_was_to_be_cancelled_ends_when_its_worker_is_lost(bench: Bench) -> None:
    """Nobody is left to be told; the wish is fulfilled instead of forgotten."""
    await lost(bench)
    await bench.cancel("r1")

    await bench.sweep()

    assert await bench.state("r1") is RunState.CANCELLED
    assert await bench.waiting() == []


async def test_a_settled_run_of_a_lost_worker_stays_settled(bench: Bench) -> None:
    """Death after the end takes nothing back."""
    held = await lost(bench)
    await bench.end(held, Completed(b"1"))
    before = await bench.fields("r1")

    assert (await bench.sweep()).reclaimed == 0

    assert await bench.fields("r1") == before


async def test_a_suspect_waits_apart_and_a_poisonous_run_is_given_up(bench: Bench) -> None:
    """It killed every worker that held it: an operator has to look, before the fleet is dead."""
    await bench.accept("r1")
    levels = []
    for token in ("w1", "w2", "w3"):
        await bench.renew(token)
        assert len(await bench.take(token)) == 1
        await bench.lapse(token)
        swept = await bench.sweep(poison=3)
        levels += [level for level, _ in await bench.waiting()]

    assert levels == ["resume", "suspect"]
    assert (swept.reclaimed, swept.poisoned) == (0, 1)
    status = await runs.status(bench.store, bench.lane, "r1")
    assert status is not None
    assert (status.state, status.crashes, status.attempt) == (RunState.FAILED, 3, 1)
    assert status.error == "worker_lost: 3 workers died while they held this run"
    assert [x.id for x in await listing.dead_letters(bench.store, bench.lane, 9)] == ["r1"]
    assert await bench.pending() == []
    assert await bench.redis.pttl(bench.lane.run("r1")) > 0


@pytest.mark.parametrize("way", ["retry", "parked", "released"])
async def test_a_suspect_stays_apart_when_it_comes_back(bench: Bench, way: str) -> None:
    """Two workers died of it: neither a pause nor a drain makes it harmless."""
    await bench.accept("r1")
    for token in ("w1", "w2"):
        await bench.renew(token)
        await bench.take(token)
        await bench.lapse(token)
        await bench.sweep()
    (held,) = await bench.take("w3")
    ends: dict[str, Outcome] = {
        "retry": Retry(0, "E", "m"),
        "parked": Parked(1, 0),
        "released": Released(),
    }
    await bench.end(held, ends[way], "w3")

    await bench.sweep()

    assert await bench.waiting() == [("suspect", "r1")]


async def test_the_dead_letters_of_poison_are_bounded(bench: Bench) -> None:
    """The same bound as for other failures."""
    for number in range(3):
        await lost(bench, f"r{number}", f"w{number}")
        await bench.sweep(poison=1, limits=Limits(dead_letters=2))

    assert await bench.redis.zcard(bench.lane.dead) == 2


async def test_a_consumer_is_removed_only_when_it_holds_nothing(bench: Bench) -> None:
    """With a consumer its pending entries would go, and their runs would be lost."""
    ids = [f"r{number}" for number in range(250)]
    await bench.accept(*ids)
    await bench.renew("w1")
    assert len(await bench.take("w1", 250)) == 250
    await bench.lapse("w1")

    first = await bench.sweep()
    assert first.reclaimed == 200
    assert "w1" in await bench.consumers()
    assert await bench.redis.zscore(bench.lane.leases, "w1") is not None

    second = await bench.sweep()
    assert second.reclaimed == 50
    assert "w1" not in await bench.consumers()
    assert await bench.redis.zscore(bench.lane.leases, "w1") is None
    assert len(await bench.take("w2", 300)) == 250


async def test_a_worker_that_is_gone_leaves_nothing_behind(bench: Bench) -> None:
    """Neither its lease nor what it said of itself nor messages to it."""
    await lost(bench)
    await bench.cancel("r1")
    await bench.redis.hset(bench.lane.agents, "w1", "{}")

    await bench.sweep()

    assert await bench.redis.hexists(bench.lane.agents, "w1") is False
    assert not [key for key in await bench.keys() if "control" in key]


async def test_a_sweep_buries_a_bounded_number_of_workers(bench: Bench) -> None:
    """A rack went down: the server must go on serving while its runs are given to others."""
    tokens = [f"w{number}" for number in range(12)]
    for number, token in enumerate(tokens):
        await bench.held(f"r{number}", token)
    await bench.redis.zadd(bench.lane.leases, dict.fromkeys(tokens, 1))

    assert [(await bench.sweep()).reclaimed for _ in range(4)] == [5, 5, 2, 0]


async def test_a_worker_that_took_without_a_lease_is_not_forgotten(bench: Bench) -> None:
    """It was buried while it was frozen, woke, took a run and died before it renewed."""
    await bench.renew("w1")
    await bench.lapse("w1")
    await bench.sweep()
    await bench.held("r1")
    await bench.accept("r2")
    await bench.read("w1")

    await bench.redis.hset(bench.lane.meta, "listed", "0")
    await bench.sweep()
    await bench.lapse("w1")  # the time of a lease passes, and it does not renew
    await bench.sweep()

    assert await bench.pending() == []
    assert sorted(await bench.waiting()) == [("resume", "r1"), ("resume", "r2")]


async def test_a_consumer_without_lease_and_without_work_is_removed(bench: Bench) -> None:
    """A blocking read makes its consumer known again, even after it was buried."""
    await bench.renew("w1")
    await bench.held("r1")
    await bench.redis.xgroup_createconsumer(bench.lane.stream("low"), "workers", "dead")
    assert await bench.consumers() == {"dead", "w1"}

    await bench.redis.hset(bench.lane.meta, "listed", "0")
    await bench.sweep()
    await bench.lapse("dead")
    await bench.sweep()

    assert await bench.consumers() == {"w1"}


async def test_what_a_process_says_after_its_burial_is_forgotten(bench: Bench) -> None:
    """It was frozen, or its message was late: a lapsed lease is buried once, and it has none."""
    about = {"host": "h", "pid": 1, "concurrency": 1, "started": 0.0, "release": "1"}
    await bench.renew("gone", "w1")
    await bench.lapse("gone")
    await bench.sweep()
    for token in ("gone", "w1"):
        agent = msgspec.convert({**about, "token": token, "workflows": ()}, Agent)
        await agents.register(bench.store, bench.lane, agent)
        await commits.commit(bench.store, bench.lane, token, [], sequence=7)

    await bench.redis.hset(bench.lane.meta, "listed", "0")
    await bench.sweep()

    assert set(await bench.redis.hkeys(bench.lane.agents)) == {b"w1", b"sequence:w1"}


async def test_a_sweep_forgets_some_of_those_who_are_gone_and_never_all_at_once(
    bench: Bench,
) -> None:
    """While the script runs nobody else is served, however many processes a fleet has had."""
    await bench.redis.hset(bench.lane.agents, mapping={f"gone{n}": "" for n in range(250)})
    left = []
    for _ in range(3):
        await bench.redis.hset(bench.lane.meta, "listed", "0")
        await bench.sweep()
        left.append(await bench.redis.hlen(bench.lane.agents))

    assert left == [150, 50, 0]


async def test_whoever_is_found_without_a_lease_has_the_time_of_one_to_renew(bench: Bench) -> None:
    """It may have begun a moment ago; to rob it at once would count against its runs."""
    held = await bench.held("r1", "new")
    await bench.redis.hset(bench.lane.meta, "listed", "0")

    for _ in range(3):
        assert (await bench.sweep()).reclaimed == 0

    assert await bench.end(held, Completed(b"1"), "new") is Verdict.WRITTEN


async def test_expired_runs_leave_the_indexes(bench: Bench) -> None:
    """The record is gone; an index that kept its id would grow for ever."""
    await put(bench, RunState.FAILED, "r1")
    await put(bench, RunState.COMPLETED, "r2")
    await bench.expire("r1")

    await bench.sweep()

    assert await bench.redis.zrange(bench.lane.ended, 0, -1) == [b"r2"]
    assert await bench.redis.zcard(bench.lane.dead) == 0


async def test_expired_runs_leave_in_bounded_numbers(bench: Bench) -> None:
    """After a night without workers the first sweep must not block the server."""
    gone = {f"r{number}": 1 for number in range(1_200)}
    await bench.redis.zadd(bench.lane.ended, gone)

    left = []
    for _ in range(3):
        await bench.sweep()
        left.append(await bench.redis.zcard(bench.lane.ended))

    assert left == [700, 200, 0]


async def test_cancelled_runs_are_told_to_their_holder_only(bench: Bench) -> None:
    """Each worker hears of its own, once, also between two sweeps."""
    await bench.held("r1", "w1")
    await bench.held("r2", "w2")
    await bench.cancel("r1", "r2")

    told = (await bench.sweep("w1", interval_s=LONG_S)).cancelled
    again = (await bench.sweep("w1")).cancelled
    other = (await bench.sweep("w2")).cancelled

    assert (told, again, other) == (("r1",), (), ("r2",))


async def test_a_cancellation_that_has_been_overtaken_is_not_told(bench: Bench) -> None:
    """The run has ended and been started again since: it would stop for an old request."""
    held = await bench.held("r1", "w1")
    await bench.cancel("r1")
    await bench.end(held, Cancelled())
    await bench.revive("r1")
    await bench.take("w1")

    assert (await bench.sweep("w1")).cancelled == ()


async def test_the_lease_of_a_test_outlives_it(bench: Bench) -> None:
    """Otherwise the tests above would prove nothing."""
    await bench.renew("w1")
    left = await bench.redis.zscore(bench.lane.leases, "w1") - await bench.now_ms()
    assert 0 < left <= LEASE_S * 1000
