"""commit.lua, taking: a worker holds what it took, under a fence that only it has."""

from __future__ import annotations

import pytest
from anyio import fail_after

from millstream.model.outcome import Completed, Released
from millstream.model.run import Delivery, Priority, RunState
from millstream.store import arrivals, commits, deliveries
from millstream.store.commits import Verdict, Want
from millstream.store.deliveries import Stray
from millstream.store.scripts import Argument, call
from tests.store.bench import RETENTION_S, Bench


def ids(taken: tuple[Delivery, ...] | list[Delivery]) -> list[str]:
    return [delivery.run_id for delivery in taken]


async def test_a_taken_run_is_held_under_a_fence(bench: Bench) -> None:
    """From here on only this process may write to it."""
    before = await bench.now_ms()
    held = await bench.held("r1", version="7", timeout_s=1.5, tenant="acme", arguments=b"[1]")

    assert (held.run_id, held.fence, held.level) == ("r1", 1, "normal")
    assert (held.workflow, held.version, held.arguments) == ("flow", "7", b"[1]")
    assert (held.attempt, held.base, held.crashes, held.refusals) == (1, 0, 0, 0)
    assert (held.ran_s, held.timeout_s, held.tenant, held.records) == (0.0, 1.5, "acme", 0)
    assert before <= held.enqueued * 1000 <= await bench.now_ms()
    assert await bench.pending() == [("normal", held.entry, "w1")]
    fields = await bench.fields("r1")
    assert (fields["state"], fields["owner"], fields["fence"]) == ("running", "w1", "1")
    assert int(fields["started"]) >= before


async def test_what_one_worker_took_no_other_is_given(bench: Bench) -> None:
    """A run has one holder."""
    await bench.accept("r1", "r2", "r3")

    assert ids(await bench.take("w1", 2)) == ["r1", "r2"]
    assert ids(await bench.take("w2", 2)) == ["r3"]
    assert ids(await bench.take("w1", 2)) == []


async def test_wanting_nothing_takes_nothing(bench: Bench) -> None:
    """A worker without a free slot must be able to write."""
    await bench.accept("r1")

    for want in (commits.NOTHING, Want(suspect=True)):
        reply = await bench.commit("w1", want=want)
        assert (reply.taken, reply.verdicts) == ((), ())

    assert await bench.pending() == []


async def test_a_commit_tells_the_clock_of_the_store(bench: Bench) -> None:
    """Timers of a run follow the clock of Redis, not that of the worker."""
    before = await bench.now_ms()
    reply = await bench.commit("w1")

    assert before <= reply.now * 1000 <= await bench.now_ms()


async def test_the_fence_grows_with_every_take(bench: Bench) -> None:
    """The same process that takes a run again is another holder; the start stays the first."""
    held = await bench.held("r1")
    started = (await bench.fields("r1"))["started"]
    await bench.end(held, Released())

    (again,) = await bench.take("w1")

    assert (again.fence, again.attempt, again.level) == (2, 1, "resume")
    assert (await bench.fields("r1"))["started"] == started


async def test_what_was_begun_comes_before_what_is_new(bench: Bench) -> None:
    """A resumed run has waited before, and others may wait for it."""
    held = await bench.held("old", priority=Priority.LOW)
    await bench.accept("new", priority=Priority.HIGH)
    await bench.end(held, Released())

    assert ids(await bench.take("w1", 2)) == ["old", "new"]


async def test_levels_share_what_is_wanted_and_take_over_what_others_leave(bench: Bench) -> None:
    """Urgent runs come first, but a flood of them never starves the rest."""
    for priority in Priority:
        await bench.accept(*(f"{priority}{number}" for number in range(4)), priority=priority)

    first = await bench.commit("w1", want=Want(high=2, normal=1, low=1))
    assert ids(first.taken) == ["high0", "high1", "normal0", "low0"]

    second = await bench.commit("w1", want=Want(high=4))
    assert ids(second.taken) == ["high2", "high3", "normal1", "normal2"]

    third = await bench.commit("w1", want=Want(high=3, normal=3, low=3))
    assert ids(third.taken) == ["normal3", "low1", "low2", "low3"]


async def test_never_more_is_taken_than_there_are_slots(bench: Bench) -> None:
    """What cannot start here would be hidden from an idle worker."""
    for priority in Priority:
        await bench.accept(*(f"{priority}{number}" for number in range(9)), priority=priority)

    for want in (Want(high=1), Want(low=2), Want(high=1, normal=1, low=1), Want(normal=5)):
        reply = await bench.commit("w1", want=want)
        assert len(reply.taken) == want.total


async def test_a_suspect_is_taken_only_by_who_asks_and_one_at_a_time(bench: Bench) -> None:
    """A run that kills its workers must not take the blameless down with it."""
    for name in ("s1", "s2"):
        await make_suspect(bench, name)
    await bench.accept("r1")

    plain = await bench.commit("w1", want=Want(normal=9))
    assert ids(plain.taken) == ["r1"]

    asking = await bench.commit("w1", want=Want(normal=9, suspect=True))
    assert ids(asking.taken) == ["s1"]
    assert asking.taken[0].level == "suspect"
    assert asking.taken[0].crashes == 2


async def test_a_run_cancelled_while_it_waited_is_thrown_away(bench: Bench) -> None:
    """Its entry stayed in the stream; whoever takes it finds nothing to do."""
    await bench.accept("r1", "r2")
    await bench.cancel("r1")

    assert ids(await bench.take("w1", 5)) == ["r2"]
    assert await bench.waiting() == [("normal", "r2")]


async def test_the_entry_of_an_expired_run_is_thrown_away(bench: Bench) -> None:
    """Nobody can run what has no record, and nothing of it may stay."""
    await bench.accept("r1")
    await bench.cancel("r1")
    await bench.expire("r1")

    assert await bench.take("w1", 5) == []
    assert await bench.waiting() == []
    assert await bench.pending() == []


async def test_an_adopted_delivery_is_held(bench: Bench) -> None:
    """What the blocking read brought is not held before the store says so."""
    await bench.accept("r1")
    (stray,) = await bench.read("w1")
    assert await bench.state("r1") is RunState.QUEUED

    verdict, (held,) = await bench.adopt("w1", stray.level, stray.entry)

    assert verdict is Verdict.WRITTEN
    assert (held.run_id, held.fence, held.entry) == ("r1", 1, stray.entry)
    assert await bench.state("r1") is RunState.RUNNING
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_adopting_twice_leaves_one_holder(bench: Bench) -> None:
    """After a lost reply the adoption is sent again: the second fence is the one that holds."""
    await bench.accept("r1")
    (stray,) = await bench.read("w1")
    _, (lost,) = await bench.adopt("w1", stray.level, stray.entry)

    verdict, (held,) = await bench.adopt("w1", stray.level, stray.entry)

    assert (verdict, held.fence) == (Verdict.WRITTEN, lost.fence + 1)
    assert await bench.end(lost, Completed(b"1")) is Verdict.FENCED
    assert await bench.end(held, Completed(b"2")) is Verdict.WRITTEN


async def test_nobody_adopts_what_was_delivered_to_another(bench: Bench) -> None:
    """An address alone gives no right."""
    held = await bench.held("r1")
    before = await bench.snapshot()

    assert await bench.adopt("w2", held.level, held.entry) == (Verdict.FENCED, [])
    assert await bench.adopt("w2", "high", "1-1") == (Verdict.FENCED, [])
    back = commits.hand_back(held.level, held.entry, RETENTION_S)
    assert await bench.verdict("w2", back) is Verdict.FENCED

    assert await bench.snapshot() == before


async def test_a_delivery_that_was_settled_cannot_be_adopted(bench: Bench) -> None:
    """The run would start anew after its end."""
    held = await bench.held("r1")
    await bench.end(held, Completed(b"1"))

    assert await bench.adopt("w1", held.level, held.entry) == (Verdict.FENCED, [])
    assert await bench.state("r1") is RunState.COMPLETED


async def test_an_entry_that_is_gone_is_no_longer_pending(bench: Bench) -> None:
    """Somebody deleted it by hand: a pending entry without content would come back for ever."""
    held = await bench.held("r1")
    await bench.redis.xdel(bench.lane.stream(held.level), held.entry)

    assert await bench.adopt("w1", held.level, held.entry) == (Verdict.FENCED, [])
    assert await bench.pending() == []


async def test_a_run_with_two_entries_is_held_once(bench: Bench) -> None:
    """Cancelled while queued and started again, it stands in the stream twice."""
    await bench.accept("r1")
    (first,) = await bench.read("w1")
    await bench.cancel("r1")
    await bench.revive("r1")
    (second,) = await bench.read("w1")

    _, (held,) = await bench.adopt("w1", second.level, second.entry)
    assert await bench.adopt("w1", first.level, first.entry) == (Verdict.WRITTEN, [])

    assert await bench.pending() == [("normal", second.entry, "w1")]
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_the_spare_entry_of_a_run_brings_nobody_the_run(bench: Bench) -> None:
    """Two workers, two entries, one run: only the entry that its record names counts."""
    await bench.accept("r1")
    await bench.cancel("r1")
    await bench.revive("r1")

    taken = [run for token in ("w1", "w2", "w3") for run in await bench.take(token)]

    assert ids(taken) == ["r1"]
    assert [entry for _, entry, _ in await bench.pending()] == [taken[0].entry]


async def test_handing_back_a_spare_entry_leaves_the_holder_alone(bench: Bench) -> None:
    """The entry from before the cancellation means nothing while the other is held."""
    await bench.accept("r1")
    (first,) = await bench.read("w1")
    await bench.cancel("r1")
    await bench.revive("r1")
    (second,) = await bench.read("w1")
    _, (held,) = await bench.adopt("w1", second.level, second.entry)

    await bench.verdict("w1", commits.hand_back(first.level, first.entry, RETENTION_S))

    assert await bench.pending() == [("normal", second.entry, "w1")]
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


@pytest.mark.parametrize("began", [False, True])
async def test_a_handed_back_delivery_waits_again(bench: Bench, began: bool) -> None:
    """No slot was free after all: the run goes to whoever has one, its attempt unchanged."""
    await bench.accept("r1")
    (stray,) = await bench.read("w1")
    if began:
        await bench.adopt("w1", stray.level, stray.entry)
    back = commits.hand_back(stray.level, stray.entry, RETENTION_S)

    assert await bench.verdict("w1", back) is Verdict.WRITTEN

    assert await bench.state("r1") is RunState.QUEUED
    assert await bench.waiting() == [("resume", "r1")]
    assert await bench.pending() == []
    before = await bench.snapshot()
    assert await bench.verdict("w1", back) is Verdict.FENCED
    assert await bench.snapshot() == before
    (held,) = await bench.take("w2")
    assert (held.attempt, held.crashes, held.fence) == (1, 0, 2 if began else 1)


async def test_handing_back_what_was_cancelled_ends_it(bench: Bench) -> None:
    """A queued run that was cancelled has ended already; a running one ends now."""
    await bench.accept("r1", "r2")
    (one,) = await bench.read("w1")
    (two,) = await bench.read("w1")
    await bench.adopt("w1", two.level, two.entry)
    assert await bench.cancel("r1", "r2") == ["cancelled", "cancelling"]

    for stray in (one, two):
        back = commits.hand_back(stray.level, stray.entry, RETENTION_S)
        assert await bench.verdict("w1", back) is Verdict.WRITTEN

    assert await bench.state("r1") is RunState.CANCELLED
    assert await bench.state("r2") is RunState.CANCELLED
    assert await bench.waiting() == []


async def test_the_blocking_read_brings_one_delivery_a_level(bench: Bench) -> None:
    """It wakes an idle worker; the rest is taken by a commit that knows the free slots."""
    assert await bench.read("w1") == []
    for priority in Priority:
        await bench.accept(f"{priority}1", f"{priority}2", priority=priority)

    found = await bench.read("w1")

    assert [stray.level for stray in found] == ["high", "normal", "low"]
    assert len(await bench.pending()) == 3


async def test_a_blocking_read_that_may_not_wait_does_not_wait_for_ever(bench: Bench) -> None:
    """To Redis zero means no limit; a wait of less than a millisecond is rounded to it."""
    with fail_after(4):
        for block_s in (0, 0.0001):
            found = await arrivals.wait(
                bench.store, bench.redis, bench.lane, "w1", block_s, after={}
            )
            assert (list(found.taken), list(found.strays)) == ([], [])


async def test_holdings_name_what_a_lost_reply_left_behind(bench: Bench) -> None:
    """The store gave, the worker never heard: without this the run waits for the lease's end."""
    await bench.accept("r1", "r2")
    (known, unheard) = await bench.take("w1", 2)

    account = await deliveries.holdings(bench.store, bench.lane, "w1", [known])

    assert account.lost == frozenset()
    assert account.strays == (Stray(unheard.level, unheard.entry),)
    verdict, (held,) = await bench.adopt("w1", unheard.level, unheard.entry)
    assert (verdict, held.run_id, held.fence) == (Verdict.WRITTEN, "r2", 2)


async def test_holdings_name_what_moved_on(bench: Bench) -> None:
    """Whoever slept through its lease learns which runs are no longer its own."""
    mine = await bench.held("mine")
    theirs = await bench.held("theirs")
    ended = await bench.held("ended")
    await bench.end(ended, Completed(b"1"))
    await bench.end(theirs, Released())
    await bench.take("w2")

    account = await deliveries.holdings(bench.store, bench.lane, "w1", [mine, theirs, ended])

    assert account.lost == {"theirs", "ended"}
    assert account.strays == ()


async def test_holdings_name_what_is_to_be_cancelled(bench: Bench) -> None:
    """The sweep that told it may have lost its reply, and a long step writes nothing."""
    held = await bench.held("r1")
    other = await bench.held("r2")
    await bench.cancel("r1")
    await bench.sweep("w1")

    account = await deliveries.holdings(bench.store, bench.lane, "w1", [held, other])

    assert account.cancelled == {"r1"}
    assert account.lost == frozenset()


async def test_holdings_of_a_stranger_are_empty(bench: Bench) -> None:
    """Asking changes nothing and makes nobody known."""
    await bench.held("r1")
    before = await bench.snapshot()

    account = await deliveries.holdings(bench.store, bench.lane, "w2", [])

    assert (account.lost, account.strays) == (frozenset(), ())
    assert await bench.snapshot() == before
    assert "w2" not in await bench.consumers()


async def make_suspect(bench: Bench, run_id: str) -> None:
    """Let two workers die while they hold a run."""
    await bench.accept(run_id)
    for token in (f"{run_id}-a", f"{run_id}-b"):
        await bench.renew(token)
        assert ids(await bench.take(token, suspect=False)) == [run_id]
        await bench.lapse(token)
        assert (await bench.sweep()).reclaimed == 1


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_traced_run_brings_its_trace_whenever_it_is_taken(bench: Bench) -> None:
    """Every take hangs under who enqueued the run, the first one and those after a crash."""
    held = await bench.held("r1", trace=TRACE, tenant="acme")
    assert (held.trace, held.tenant, held.records, held.refusals) == (TRACE, "acme", 0, 0)

    await bench.verdict("w1", commits.journal(held, [("a#0", b"[1]")], "1"))
    await bench.end(held, Released())
    (again,) = await bench.take("w1")

    assert (again.trace, again.records, again.fence) == (TRACE, 1, 2)


async def test_a_run_that_is_not_traced_brings_nothing_more(bench: Bench) -> None:
    """What nobody uses costs nobody a byte."""
    await bench.accept("plain")
    args: list[Argument] = ["w1", 0, 1, 0, 0, 1000, 1_000_000, 100, 100, 0]
    (row,) = (await call(bench.store.scripts, "commit", bench.lane, args))[2]

    assert len(row) == 11
