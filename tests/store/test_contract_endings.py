"""commit.lua, ending: one delivery gets one end, from its holder, together with the ack."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from millstream.errors import StoreError
from millstream.model.limits import Limits
from millstream.model.outcome import (
    Cancelled,
    Completed,
    Failed,
    Outcome,
    Parked,
    Refused,
    Released,
    Retry,
)
from millstream.model.run import RunState
from millstream.store import codec, commits, deliveries, listing, runs
from millstream.store.commits import Verdict
from millstream.store.keys import GROUP
from tests.store.bench import LONG_S, RETENTION_S, Bench, ending

#: Far ahead of every clock.
NEVER_S = 4e9
#: Every end of a delivery, and where it leaves the run.
ENDS: dict[str, tuple[Outcome, RunState]] = {
    "completed": (Completed(b"1"), RunState.COMPLETED),
    "failed": (Failed("E", "m"), RunState.FAILED),
    "cancelled": (Cancelled(), RunState.CANCELLED),
    "retry": (Retry(LONG_S, "E", "m"), RunState.SCHEDULED),
    "parked": (Parked(NEVER_S, 0.5), RunState.PARKED),
    "released": (Released(), RunState.QUEUED),
    "refused": (Refused(LONG_S), RunState.SCHEDULED),
}
each_end = pytest.mark.parametrize(("outcome", "state"), ENDS.values(), ids=ENDS.keys())


@each_end
async def test_an_end_moves_the_run_and_takes_the_delivery_away(
    bench: Bench, outcome: Outcome, state: RunState
) -> None:
    """State and acknowledgement are one write: no crash can part them."""
    held = await bench.held("r1")

    assert await bench.end(held, outcome) is Verdict.WRITTEN

    assert await bench.state("r1") is state
    assert await bench.pending() == []
    assert await bench.waiting() == ([("resume", "r1")] if state is RunState.QUEUED else [])


@each_end
async def test_an_end_sent_twice_is_one_end(
    bench: Bench, outcome: Outcome, state: RunState
) -> None:
    """After a lost reply it is sent again; a second retry or a second entry would be a second run.

    A release gives the ownership up, so its repetition is told that the run is not held.
    """
    held = await bench.held("r1")
    await bench.end(held, outcome)
    before = await bench.snapshot()

    expected = Verdict.FENCED if isinstance(outcome, Released) else Verdict.WRITTEN
    assert await bench.end(held, outcome) is expected

    assert await bench.snapshot() == before


@each_end
async def test_a_second_end_of_another_kind_changes_nothing(
    bench: Bench, outcome: Outcome, state: RunState
) -> None:
    """The first end stands."""
    held = await bench.held("r1")
    await bench.end(held, outcome)
    before = await bench.snapshot()

    for other, _ in ENDS.values():
        await bench.end(held, other)

    assert await bench.snapshot() == before


@each_end
async def test_a_zombie_ends_nothing(bench: Bench, outcome: Outcome, state: RunState) -> None:
    """A worker that slept through its lease wakes and settles: the run has another holder."""
    await bench.renew("w1")
    held = await bench.held("r1")
    await bench.lapse("w1")
    await bench.sweep()
    before = await bench.snapshot()
    assert await bench.end(held, outcome) is Verdict.FENCED
    assert await bench.snapshot() == before

    (again,) = await bench.take("w2")
    before = await bench.snapshot()
    assert await bench.end(held, outcome) is Verdict.FENCED
    assert await bench.snapshot() == before

    assert await bench.end(again, Completed(b"2"), "w2") is Verdict.WRITTEN


@each_end
async def test_an_old_end_is_refused_when_the_same_process_holds_the_run_again(
    bench: Bench, outcome: Outcome, state: RunState
) -> None:
    """The token matches; only the fence tells the two holdings apart."""
    old = await bench.held("r1")
    await bench.end(old, Released())
    (held,) = await bench.take("w1")
    before = await bench.snapshot()

    assert await bench.end(old, outcome) is Verdict.FENCED

    assert await bench.snapshot() == before
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_result_is_kept_for_its_retention(bench: Bench) -> None:
    """It can be read until then, and leaves by itself."""
    held = await bench.held("r1")
    before = await bench.now_ms()
    await bench.end(held, Completed(b'{"x":1}'))

    fields = await bench.fields("r1")
    assert (fields["state"], fields["result"]) == ("completed", '{"x":1}')
    assert before <= int(fields["ended"]) <= await bench.now_ms()
    left = await bench.redis.pttl(bench.lane.run("r1"))
    assert RETENTION_S * 1000 - 60_000 < left <= RETENTION_S * 1000
    assert await bench.redis.zrange(bench.lane.ended, 0, -1) == [b"r1"]
    assert await bench.redis.zcard(bench.lane.dead) == 0


async def test_a_failure_is_kept_and_stands_among_the_dead(bench: Bench) -> None:
    """An operator finds it, with its cause."""
    held = await bench.held("r1")
    await bench.end(held, Failed("ValueError", "no such topic"))

    status = await runs.status(bench.store, bench.lane, "r1")
    assert status is not None
    assert (status.state, status.error) == (RunState.FAILED, "ValueError: no such topic")
    dead = await listing.dead_letters(bench.store, bench.lane, 10)
    assert [found.id for found in dead] == ["r1"]


async def test_an_error_is_cut_to_its_bound(bench: Bench) -> None:
    """A message of a megabyte must not fill the store."""
    held = await bench.held("r1")
    await bench.end(held, Failed("E", "x" * 1_000_000))

    cause, message = codec.decode((await bench.fields("r1"))["error"].encode())
    assert (cause, len(message)) == ("E", 4096)


async def test_the_dead_letters_are_bounded(bench: Bench) -> None:
    """The oldest leave the index; their records stay."""
    limits = Limits(dead_letters=3)
    for number in range(5):
        held = await bench.held(f"r{number}")
        # The index is ordered by time, to the millisecond.
        await bench.commit("w1", ending(held, Failed("E", "m")), limits=limits)
        await bench.redis.zadd(bench.lane.dead, {f"r{number}": number + 1}, xx=True)

    assert await bench.redis.zrange(bench.lane.dead, 0, -1) == [b"r2", b"r3", b"r4"]
    assert await bench.state("r0") is RunState.FAILED


async def test_a_retry_counts_and_forgets_what_escaped(bench: Bench) -> None:
    """The next attempt replays every record but the failure that ended this one."""
    held = await bench.held("r1")
    await bench.commit("w1", commits.journal(held, [("a", b"1"), ("b", b"2"), ("c", b"3")], "1"))
    before = await bench.now_ms()
    await bench.end(held, Retry(2.5, "E", "m", drop=("b", "c", "unknown")))

    fields = await bench.fields("r1")
    assert (fields["attempt"], fields["error"]) == ("2", '["E","m"]')
    assert await bench.journal("r1") == {"a": b"1"}
    due = await bench.redis.zscore(bench.lane.timers, "r1")
    assert before + 2500 <= due <= await bench.now_ms() + 2500

    await bench.fall_due("r1")
    await bench.sweep()
    (again,) = await bench.take("w2")
    assert (again.attempt, again.fence, again.records, again.level) == (2, 2, 1, "resume")


async def test_a_retry_without_a_pause_goes_on_with_the_next_sweep(bench: Bench) -> None:
    """Zero is a time like any other."""
    held = await bench.held("r1")
    await bench.end(held, Retry(0, "E", "m"))
    assert await bench.state("r1") is RunState.SCHEDULED

    assert (await bench.sweep()).promoted == 1

    assert await bench.state("r1") is RunState.QUEUED


async def test_a_parked_run_goes_on_where_it_was(bench: Bench) -> None:
    """Its attempt does not count anew, and the time it ran so far is remembered."""
    held = await bench.held("r1")
    await bench.end(held, Parked(NEVER_S, 1.25))
    assert await bench.redis.zscore(bench.lane.parked, "r1") == NEVER_S * 1000

    await bench.fall_due("r1")
    await bench.sweep()

    (again,) = await bench.take("w2")
    assert (again.attempt, again.ran_s, again.level) == (1, 1.25, "resume")


async def test_a_new_attempt_starts_its_clock_anew(bench: Bench) -> None:
    """The timeout bounds one attempt, not the sum of all."""
    held = await bench.held("r1")
    await bench.end(held, Parked(1, 1.25))
    await bench.sweep()
    (held,) = await bench.take("w1")
    await bench.end(held, Retry(0, "E", "m"))
    await bench.sweep()

    (again,) = await bench.take("w1")

    assert again.ran_s == 0


async def test_a_released_run_keeps_its_attempt(bench: Bench) -> None:
    """A drain is nobody's fault."""
    held = await bench.held("r1")
    await bench.end(held, Released())

    (again,) = await bench.take("w2")

    assert (again.attempt, again.crashes, again.refusals) == (1, 0, 0)


async def test_refusals_count_in_a_row(bench: Bench) -> None:
    """A worker that knew the workflow has held it in between: somebody does know it."""
    held = await bench.held("r1")
    for expected in (1, 2):
        await bench.end(held, Refused(0))
        await bench.sweep()
        (held,) = await bench.take("w1")
        assert held.refusals == expected
    await bench.end(held, Released())
    (held,) = await bench.take("w1")

    await bench.end(held, Refused(0))
    await bench.sweep()

    (held,) = await bench.take("w1")
    assert held.refusals == 1


async def test_a_refused_run_keeps_its_attempt_and_counts_the_refusal(bench: Bench) -> None:
    """Another worker may know it; after enough refusals somebody says that nobody does."""
    held = await bench.held("r1")
    for count in (1, 2):
        await bench.verdict("w1", ending(held, Refused(0), version=""))
        await bench.sweep()
        (held,) = await bench.take("w1")
        assert (held.attempt, held.refusals, held.version) == (1, count, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(LONG_S, "E", "m"),
        lambda: Parked(NEVER_S, 1.0),
        Released,
        lambda: Refused(LONG_S),
        Cancelled,
    ],
    ids=["retry", "parked", "released", "refused", "cancelled"],
)
async def test_a_run_that_is_put_aside_after_a_cancellation_ends(
    bench: Bench, make: Callable[[], Outcome]
) -> None:
    """The request came between the last step and the commit: it must not sleep with the run."""
    held = await bench.held("r1")
    assert await bench.cancel("r1") == ["cancelling"]

    assert await bench.end(held, make()) is Verdict.WRITTEN

    fields = await bench.fields("r1")
    assert fields["state"] == "cancelled"
    assert fields["error"] == '["RunCancelled","the run was cancelled"]'
    assert await bench.waiting() == []
    assert await bench.pending() == []
    assert await bench.redis.zcard(bench.lane.timers) == 0
    assert await bench.redis.zcard(bench.lane.parked) == 0
    before = await bench.snapshot()
    assert await bench.end(held, make()) is not Verdict.CANCEL
    assert await bench.snapshot() == before


@pytest.mark.parametrize("outcome", [Completed(b"1"), Failed("E", "m")])
async def test_an_end_that_was_reached_stands_against_a_cancellation(
    bench: Bench, outcome: Outcome
) -> None:
    """The run was quicker: what it did is done."""
    held = await bench.held("r1")
    await bench.cancel("r1")

    assert await bench.end(held, outcome) is Verdict.WRITTEN

    state = await bench.state("r1")
    assert state is (RunState.COMPLETED if isinstance(outcome, Completed) else RunState.FAILED)


@pytest.mark.parametrize("want", [commits.NOTHING, commits.Want(normal=1)], ids=["end", "take"])
async def test_an_end_is_listed_although_the_group_was_lost(
    bench: Bench, want: commits.Want
) -> None:
    """The commit that fails for it has written the end; said again it does not write it again."""
    held = await bench.held("r1")
    await bench.redis.xgroup_destroy(bench.lane.stream("normal"), GROUP)

    with contextlib.suppress(StoreError):
        await bench.commit("w1", ending(held, Completed(b"1")), want=want)
    await deliveries.ensure_groups(bench.store, bench.lane)
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN

    assert await bench.redis.zrange(bench.lane.ended, 0, -1) == [b"r1"]


async def test_a_retry_may_drop_as_many_records_as_a_journal_has(bench: Bench) -> None:
    """All of ten thousand steps may have failed, and their errors have escaped together."""
    held = await bench.held("r1")
    names = [f"step{number}" for number in range(10_000)]
    for first in range(0, len(names), 1000):
        records = [(name, b"x") for name in names[first : first + 1000]]
        assert await bench.verdict("w1", commits.journal(held, records, "")) is Verdict.WRITTEN

    assert await bench.end(held, Retry(LONG_S, "E", "m", tuple(names))) is Verdict.WRITTEN

    assert await bench.redis.hlen(bench.lane.journal("r1")) == 0
    assert await bench.redis.zrange(bench.lane.timers, 0, -1) == [b"r1"]
