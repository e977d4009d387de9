"""cancel.lua and revive.lua: a run ends because somebody asked, or starts once more."""

from __future__ import annotations

import pytest

from millstream.model.outcome import Completed, Failed, Parked
from millstream.model.run import Priority, RunState
from millstream.store import commits, runs
from millstream.store.commits import Verdict
from tests.store.bench import RETENTION_S, Bench, ending
from tests.store.states import put

WAITING = [RunState.SCHEDULED, RunState.QUEUED, RunState.PARKED]
ENDED = [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED]


@pytest.mark.parametrize("state", WAITING)
async def test_a_run_that_nobody_holds_ends_at_once(bench: Bench, state: RunState) -> None:
    """There is nobody to tell."""
    await put(bench, state)

    assert await bench.cancel("r1") == ["cancelled"]

    fields = await bench.fields("r1")
    assert fields["state"] == "cancelled"
    assert fields["error"] == '["RunCancelled","the run was cancelled"]'
    assert 0 < await bench.redis.pttl(bench.lane.run("r1")) <= RETENTION_S * 1000
    assert await bench.redis.zrange(bench.lane.ended, 0, -1) == [b"r1"]
    for index in (bench.lane.timers, bench.lane.parked, bench.lane.dead):
        assert await bench.redis.zcard(index) == 0
    assert (await bench.sweep()).promoted == 0
    assert await bench.take("w2", 5) == []


async def test_the_holder_of_a_running_run_is_told(bench: Bench) -> None:
    """It may have something to clean up; it writes until it stops."""
    held = await bench.held("r1")

    assert await bench.cancel("r1") == ["cancelling"]
    assert await bench.cancel("r1") == ["cancelling"]

    assert await bench.state("r1") is RunState.RUNNING
    item = commits.journal(held, [("a", b"1")], "1")
    assert await bench.verdict("w1", item) is Verdict.CANCEL
    assert (await bench.sweep("w1")).cancelled == ("r1",)
    ttl = [await bench.redis.pttl(key) for key in await bench.keys() if "control" in key]
    assert all(left > 0 for left in ttl)


@pytest.mark.parametrize("state", ENDED)
async def test_what_has_ended_stays_as_it_is(bench: Bench, state: RunState) -> None:
    """The answer names the end that came first."""
    await put(bench, state)
    before = await bench.snapshot()

    assert await bench.cancel("r1") == [state]

    assert await bench.snapshot() == before


async def test_every_id_has_its_own_answer(bench: Bench) -> None:
    """Unknown ids are no error: their records may have expired."""
    await put(bench, RunState.COMPLETED, "r1")
    await bench.held("r2")
    await bench.accept("r3")

    assert await bench.cancel("r1", "r2", "r3", "r4") == [
        "completed", "cancelling", "cancelled", "",
    ]  # fmt: skip
    assert await bench.cancel() == []
    assert await runs.status(bench.store, bench.lane, "r4") is None


async def test_a_cancelled_run_is_not_brought_back_by_its_timer(bench: Bench) -> None:
    """It was due in the same moment."""
    await put(bench, RunState.SCHEDULED)
    await bench.fall_due("r1")
    await bench.cancel("r1")

    await bench.sweep()

    assert await bench.state("r1") is RunState.CANCELLED
    assert await bench.waiting() == []


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED])
async def test_an_ended_run_can_be_started_once_more(bench: Bench, state: RunState) -> None:
    """An operator repaired what was broken: the run goes on after its last record."""
    await put(bench, state)

    assert await bench.revive("r1") == ["queued"]

    status = await runs.status(bench.store, bench.lane, "r1")
    assert status is not None
    assert (status.state, status.attempt, status.error) == (RunState.QUEUED, 2, None)
    assert status.times.ended is None
    for index in (bench.lane.ended, bench.lane.dead):
        assert await bench.redis.zcard(index) == 0
    assert await bench.redis.pttl(bench.lane.run("r1")) == -1
    (again,) = await bench.take("w2")
    assert (again.attempt, again.base, again.fence) == (2, 1, 2)
    assert await bench.end(again, Completed(b"1"), "w2") is Verdict.WRITTEN


async def test_a_started_again_run_keeps_every_record_but_its_failure(bench: Bench) -> None:
    """Replaying the failure would fail it again; repeating the rest would repeat its effects."""
    held = await bench.held("r1")
    await bench.commit(
        "w1",
        commits.journal(held, [("a", b"1"), ("b", b"2"), ("c/d e", b"3")], "1"),
        commits.emit(held, "e", b"said", b'["n",1]', "1"),
        ending(held, Failed("E", "m"), drop=("b", "c/d e")),
    )
    assert await bench.redis.pttl(bench.lane.journal("r1")) > 0
    assert await bench.redis.pttl(bench.lane.events("r1")) > 0

    await bench.revive("r1")

    assert await bench.journal("r1") == {"a": b"1", "e": b"said"}
    for key in (bench.lane.journal("r1"), bench.lane.events("r1")):
        assert await bench.redis.pttl(key) == -1
    (again,) = await bench.take("w2")
    assert again.records == 2
    await bench.end(again, Failed("E", "m"), "w2")
    await bench.revive("r1")
    assert await bench.journal("r1") == {"a": b"1", "e": b"said"}


async def test_starting_again_forgives_dead_workers_and_refusals(bench: Bench) -> None:
    """The operator vouches for it: it needs no isolation, and has all its lives again."""
    await bench.accept("r1", priority=Priority.HIGH)
    for token in ("w1", "w2", "w3"):
        await bench.renew(token)
        await bench.take(token)
        await bench.lapse(token)
        await bench.sweep()
    assert await bench.state("r1") is RunState.FAILED

    await bench.revive("r1")

    assert await bench.waiting() == [("high", "r1")]
    (again,) = await bench.take("w4", suspect=False)
    assert (again.crashes, again.refusals, again.ran_s) == (0, 0, 0.0)


async def test_a_started_again_run_can_be_cancelled_again(bench: Bench) -> None:
    """The old request is forgotten, a new one counts."""
    held = await bench.held("r1")
    await bench.cancel("r1")
    await bench.end(held, Parked(1, 0))
    assert await bench.state("r1") is RunState.CANCELLED
    await bench.revive("r1")
    (again,) = await bench.take("w1")
    item = commits.journal(again, [("a", b"1")], "1")
    assert await bench.verdict("w1", item) is Verdict.WRITTEN

    await bench.cancel("r1")

    assert await bench.verdict("w1", item) is Verdict.CANCEL


@pytest.mark.parametrize("state", [*WAITING, RunState.RUNNING, RunState.COMPLETED])
async def test_only_what_ended_badly_can_be_started_again(bench: Bench, state: RunState) -> None:
    """Sent twice, or by mistake, it starts no second run."""
    await put(bench, state)
    before = await bench.snapshot()

    assert await bench.revive("r1", "unknown") == [state, ""]

    assert await bench.snapshot() == before


async def test_starting_again_twice_starts_once(bench: Bench) -> None:
    """The reply was lost, or two operators had the same thought."""
    await put(bench, RunState.FAILED)

    assert await bench.revive("r1") == ["queued"]
    assert await bench.revive("r1") == ["queued"]

    assert await bench.waiting() == [("normal", "r1")]
