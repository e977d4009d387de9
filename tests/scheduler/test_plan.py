"""What a schedule does next, as a pure function of where it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.model.schedule import Overlap, Progress, Schedule
from millstream_scheduler.plan import MOST_WAITING, ON_TIME_S, Plan, plan

MINUTE = 60.0
#: A whole day, so that every interval of these tests has a tick there.
START = 41_667 * 86400.0


def decided(
    now: float, progress: Progress | None = None, *, busy: bool = False, **options: Any
) -> Plan:
    schedule = Schedule("s", "w", **{"every": MINUTE, **options}).checked()
    return plan(schedule, progress or Progress(next=START), now, busy=busy)


def test_a_tick_on_time_gets_its_run() -> None:
    found = decided(START + 0.01)

    assert found.fire == (START,)
    assert found.progress.next == found.due == START + MINUTE
    assert found.progress.last_run == "s@2084-01-30T00:00:00Z"
    assert (found.progress.fired, found.progress.skipped) == (1, 0)


def test_a_tick_that_is_not_due_is_left_alone() -> None:
    """The clock of Redis went back, or somebody looked too early."""
    found = decided(START - 5)

    assert (found.fire, found.due, found.progress) == ((), START, Progress(next=START))


@pytest.mark.parametrize(
    ("catch_up", "fired"), [("skip", [59, 60]), ("last", [59, 60]), ("all", [*range(61)])]
)
def test_after_an_hour_the_policy_decides(catch_up: str, fired: list[int]) -> None:
    """The newest two are hardly late, and on time under every policy."""
    found = decided(START + 3600, catch_up=catch_up, overlap="allow")

    assert [round((tick - START) / MINUTE) for tick in found.fire] == fired
    assert found.progress.skipped == 61 - len(fired)
    assert found.progress.next == START + 3660


@pytest.mark.parametrize(("catch_up", "fired"), [("skip", 0), ("last", 1), ("all", 5)])
def test_a_rare_tick_that_was_missed_is_made_up_for(catch_up: str, fired: int) -> None:
    """A nightly run for which nobody was there runs in the morning, unless that is unwanted."""
    found = decided(START + 4.5 * 86400, every=86400, catch_up=catch_up, overlap="allow")

    assert len(found.fire) == fired
    assert found.fire == tuple(START + n * 86400 for n in range(5))[5 - fired :]
    assert found.skipped == ({"late": 5 - fired} if fired < 5 else {})


def test_catching_up_has_a_bound() -> None:
    """A year of minutes must not become half a million runs; the newest are kept."""
    found = decided(START + 365 * 86400, catch_up="all", catch_up_limit=150, overlap="allow")

    assert len(found.fire) == 150
    assert found.fire[-1] == START + 365 * 86400


def test_a_leader_that_was_missing_for_a_while_loses_no_tick() -> None:
    """Another scheduler took over: what it finds is late, and on time under every policy."""
    found = decided(START + ON_TIME_S / 2, every=1, catch_up="skip", overlap="allow")

    assert len(found.fire) == ON_TIME_S / 2 + 1


def test_skip_passes_over_what_would_overlap() -> None:
    before = Progress(next=START, last_run="s@before", last=START - MINUTE, fired=1)

    found = decided(START, before, busy=True)
    assert found.fire == ()
    assert found.skipped == {"overlap": 1}
    assert found.progress.last_run == "s@before"

    assert decided(START, before, busy=False).fire == (START,)


def test_of_several_ticks_at_once_skip_runs_the_newest() -> None:
    found = decided(START + 10, every=1)

    assert found.fire == (START + 10,)
    assert found.skipped == {"overlap": 10}


def test_cancel_ends_the_run_before() -> None:
    before = Progress(next=START, last_run="s@before")

    assert decided(START, before, overlap="cancel", busy=True).cancel
    assert decided(START, before, overlap="cancel", busy=True).fire == (START,)
    assert not decided(START, before, overlap="cancel", busy=False).cancel
    # Without a tick there is nothing to make room for.
    assert not decided(START - 1, before, overlap="cancel", busy=True).cancel


def test_queue_runs_one_after_the_other_in_order() -> None:
    before = Progress(next=START, last_run="s@before")
    now = START + 2
    held = decided(now, before, every=1, overlap="queue", busy=True)
    assert (held.fire, held.progress.waiting) == ((), (START, START + 1, START + 2))
    assert held.due is not None
    assert now < held.due <= START + 3

    free = decided(now, held.progress, every=1, overlap="queue", busy=False)
    assert (free.fire, free.progress.waiting) == ((START,), (START + 1, START + 2))


def test_only_so_many_wait() -> None:
    """A run that never ends must not fill the schedule; who waits first stays."""
    waiting = tuple(START - n for n in range(MOST_WAITING, 0, -1))
    found = decided(START, Progress(next=START, waiting=waiting), overlap="queue", busy=True)

    assert found.progress.waiting == waiting
    assert found.skipped == {"full": 1}


def test_a_schedule_that_is_over_is_not_looked_at_again() -> None:
    from datetime import UTC, datetime

    end = datetime.fromtimestamp(START, UTC)
    found = decided(START, end=end)

    assert (found.fire, found.progress.next, found.due) == ((START,), None, None)


def test_jitter_delays_each_tick_by_its_own_while() -> None:
    """Of two ticks the later one may have the shorter delay; they stay in order."""
    first = decided(START, jitter=90)
    assert first.due is not None
    assert START < first.due < START + 90
    assert first.fire == ()

    assert decided(first.due, jitter=90).fire == (START,)


@settings(max_examples=50, deadline=None)
@given(
    overlap=st.sampled_from(Overlap),
    catch_up=st.sampled_from(["skip", "last", "all"]),
    every=st.sampled_from([1.0, 6.0, 60.0]),
    jitter=st.sampled_from([0.0, 20.0]),
    rounds=st.lists(st.tuples(st.floats(0, 400), st.booleans()), min_size=1, max_size=20),
)
def test_whatever_happens_no_tick_is_fired_twice_and_none_vanishes(
    overlap: Overlap, catch_up: str, every: float, jitter: float, rounds: list[tuple[float, bool]]
) -> None:
    """Every tick is fired, waits, or was counted as passed over: nothing else."""
    schedule = Schedule(
        "s", "w", every=every, overlap=overlap, catch_up=catch_up, jitter=jitter,  # type: ignore[arg-type]
        catch_up_limit=500,
    ).checked()  # fmt: skip
    progress, now, fired = Progress(next=START), START, list[float]()
    for passed, busy in rounds:
        now += passed
        found = plan(schedule, progress, now, busy=busy)
        progress = found.progress
        fired += found.fire
        assert found.due is not None
        assert found.due > now

    assert progress.next is not None
    assert fired == sorted(set(fired))
    assert not set(fired) & set(progress.waiting)
    seen = round((progress.next - START) / every)
    assert len(fired) + len(progress.waiting) + progress.skipped == seen
    assert len(fired) == progress.fired
