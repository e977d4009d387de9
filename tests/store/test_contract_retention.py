"""Retention: what ended is kept for its time and then leaves nothing behind."""

from __future__ import annotations

import time

import pytest
from anyio import fail_after, sleep

from millstream.model.outcome import Cancelled, Completed, Failed, Outcome
from millstream.store import commits, results, runs, spills
from millstream.store.connection import Connection
from tests.store.bench import RETENTION_S, Bench, ending

ENDS: list[Outcome] = [Completed(b"1"), Failed("E", "m"), Cancelled()]


async def full_life(bench: Bench, run_id: str, outcome: Outcome) -> None:
    """A run that uses everything a run can have, and ends."""
    held = await bench.held(run_id, tenant="acme")
    await results.watch(bench.store, bench.lane, "c1", [run_id])
    large = b"x" * spills.LEAST
    spilled = spills.reference("s", large)
    await spills.keep(bench.store, bench.lane, "w1", held, spilled, large)
    await bench.commit(
        "w1",
        commits.journal(held, [("a", b"1")], "1"),
        commits.emit(held, "e", b"said", b'["n",1]', "1"),
        ending(held, outcome, drop=("a",)),
    )


async def test_the_key_space_after_all_expiry_is_that_of_before(bench: Bench) -> None:
    """A server that runs for years must not fill with what has long ended."""
    await bench.renew("w1", "w2")
    before = await bench.keys()
    for number, outcome in enumerate(ENDS):
        await full_life(bench, f"r{number}", outcome)
    await bench.held("r3")
    await bench.cancel("r3")
    await bench.lapse("w1")
    await bench.sweep("w2")
    await bench.accept("r4")
    await bench.accept("r5", delay_s=1000)
    await bench.cancel("r4", "r5")
    await bench.take("w2", 5)
    ids = [f"r{number}" for number in range(6)]

    for run_id in ids:
        for key in await bench.keys():
            if key.endswith(f":{run_id}"):
                assert 0 < await bench.redis.pttl(key) <= RETENTION_S * 1000, key
        await bench.expire(run_id)
    await bench.sweep("w2")

    assert await bench.keys() == before
    assert await bench.waiting() == []
    assert await bench.pending() == []
    for run_id in ids:
        assert await runs.status(bench.store, bench.lane, run_id) is None


async def test_all_keys_of_a_lane_stand_under_its_prefix(bench: Bench) -> None:
    """Nothing is written elsewhere: in a cluster it could not be, beside others it should not."""
    await full_life(bench, "r0", Failed("E", "m"))
    await bench.held("r1")
    await bench.cancel("r1")
    await bench.accept("r2", delay_s=1000)

    assert all(key.startswith(bench.lane.prefix) for key in await bench.keys())


@pytest.mark.parametrize("outcome", ENDS, ids=["completed", "failed", "cancelled"])
async def test_a_record_leaves_by_itself(bench: Bench, outcome: Outcome) -> None:
    """Nobody has to clean up for it."""
    held = await bench.held("r1")
    await bench.commit(
        "w1",
        commits.journal(held, [("a", b"1")], "1"),
        commits.emit(held, "e", b"said", b'["n",1]', "1"),
        commits.ending(held, outcome, "1", 0.03),
    )

    with fail_after(10):
        while [key for key in await bench.keys() if key.endswith(":r1")]:
            await sleep(0.005)

    assert await results.watch(bench.store, bench.lane, "c1", ["r1"]) == [results.Unknown()]
    with fail_after(10):
        # The index may be a moment behind.
        while await bench.redis.exists(bench.lane.ended, bench.lane.dead):
            await bench.sweep()


async def test_whoever_waits_is_told_even_when_nothing_is_kept(bench: Bench) -> None:
    """Without retention the message is all there is."""
    held = await bench.held("r1")
    inbox = results.Inbox(bench.store, bench.lane, "c1")
    await inbox.open()
    await results.watch(bench.store, bench.lane, "c1", ["r1"])

    await bench.verdict("w1", commits.ending(held, Completed(b"1"), "1", 0))

    with fail_after(10):
        async for message in inbox.messages(0.01):
            if message is not None:
                assert message.run_id == "r1"
                break
    await inbox.aclose()
    assert await bench.state("r1") is None


async def test_a_day_passes(memory_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same by the clock: until the retention is over everything stays, then nothing."""
    real, ahead_s = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    store = Connection(memory_url)
    bench = Bench(store)
    await bench.prepare()
    await bench.renew("w1")
    before = await bench.keys()
    await full_life(bench, "r1", Failed("E", "m"))

    ahead_s = RETENTION_S - 60
    await bench.sweep()
    assert await bench.state("r1") == "failed"
    assert await bench.redis.zcard(bench.lane.dead) == 1

    ahead_s = RETENTION_S + 60
    await bench.renew("w1")
    assert await bench.state("r1") is None
    await bench.sweep()
    assert await bench.keys() == before
    await store.aclose()


async def test_a_started_again_run_does_not_expire_under_its_worker(bench: Bench) -> None:
    """Its record was on its way out when the operator brought it back."""
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("a", b"1")], "1"))
    await bench.verdict("w1", commits.ending(held, Failed("E", "m"), "1", 0.2))
    await bench.revive("r1")

    await sleep(0.25)
    (again,) = await bench.take("w1")

    assert (again.records, again.attempt) == (1, 2)
