"""Ids, pauses and shares: pure arithmetic, held over all inputs."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import RetryPolicy
from millstream.errors import StepFailed, UsageError
from millstream.model import ids
from millstream_worker.slots import Shares, Slots


@given(st.integers(), st.integers(1, 64))
def test_a_new_id_is_allowed_and_has_a_lane(seed: int, lanes: int) -> None:
    run_id = ids.new_run_id(Random(seed))
    assert ids.check_run_id(run_id) == run_id
    assert len(run_id) == 16
    assert 0 <= ids.lane_of(run_id, lanes) < lanes


@pytest.mark.parametrize("bad", ["", " ", "a b", "a{b}", "-a", "x" * 201, "ä", "a\n"])
def test_an_id_that_could_break_a_key_is_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        ids.check_run_id(bad)


@given(
    attempt=st.integers(1, 200),
    most=st.integers(1, 200),
    initial=st.floats(0, 1000),
    factor=st.floats(1, 10),
    maximum=st.floats(0, 1000),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_a_pause_stays_within_its_bounds(
    attempt: int,
    most: int,
    initial: float,
    factor: float,
    maximum: float,
    jitter: float,
    seed: int,
) -> None:
    policy = RetryPolicy(
        max_attempts=most, initial=initial, factor=factor, maximum=maximum, jitter=jitter
    )
    pause = policy.pause(attempt, Random(seed))
    if attempt >= most:
        assert pause is None
    else:
        assert pause is not None
        assert 0 <= pause <= maximum * (1 + jitter)


def test_an_error_is_banned_by_class_name_or_cause() -> None:
    policy = RetryPolicy(non_retryable=(KeyError, "Teapot"))
    assert policy.retries(ValueError())
    assert not policy.retries(KeyError())
    assert not policy.retries(StepFailed("x", cause="Teapot"))
    assert not policy.retries(StepFailed("x", cause="KeyError"))
    assert not RetryPolicy(non_retryable=("LookupError",)).retries(KeyError())


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60))
def test_shares_add_up_and_no_level_starves(counts: list[int]) -> None:
    shares = Shares()
    total = {"high": 0, "normal": 0, "low": 0}
    for count in counts:
        parts = shares.split(count)
        assert sum(parts.values()) == count
        assert min(parts.values()) >= 0
        for level, part in parts.items():
            total[level] += part
    for level, weight in Shares.WEIGHTS:
        assert abs(total[level] - sum(counts) * weight / 10) <= 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=50))
def test_slots_are_never_promised_twice(moves: list[tuple[bool, int]]) -> None:
    slots = Slots(10)
    taken = 0
    for take, number in moves:
        if take:
            taken += slots.take(number)
        else:
            back = min(number, taken)
            slots.give(back)
            taken -= back
        assert 0 <= slots.free == 10 - taken
