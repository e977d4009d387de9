"""When a batch leaves: never later than waiting can pay."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from millstream_worker.inference.patience import Patience, Reason, Waiting


def waiting(**facts: object) -> Waiting:
    given = {
        "full": False, "bytes_full": False, "could_grow": True, "since": 0.0,
        "launch_by": math.inf, **facts,
    }  # fmt: skip
    return Waiting(**given)  # type: ignore[arg-type]


def test_nobody_who_could_join_means_nothing_to_wait_for() -> None:
    assert Patience(5.0).decide(0.0, waiting(could_grow=False), 1.0) is Reason.QUIESCENT


def test_a_full_batch_leaves() -> None:
    assert Patience(5.0).decide(0.0, waiting(full=True), 1.0) is Reason.FULL
    assert Patience(5.0).decide(0.0, waiting(bytes_full=True), 1.0) is Reason.BYTES


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10))
def test_the_wait_is_never_longer_than_the_fixed_cost_or_the_limit(
    most: float, fixed: float, since: float
) -> None:
    until = Patience(most).decide(since, waiting(since=since), fixed)
    if until is Reason.TIMER:
        return
    assert not isinstance(until, Reason)
    assert since < until <= since + min(most, fixed)


def test_a_deadline_cuts_the_wait() -> None:
    assert Patience(1.0).decide(0.0, waiting(launch_by=0.25), 1.0) == 0.25
    assert Patience(1.0).decide(0.3, waiting(launch_by=0.25), 1.0) is Reason.DEADLINE


def test_a_wait_in_vain_is_not_repeated_for_a_while() -> None:
    """A neighbour that hangs in a slow tool must not tax every batch."""
    patience = Patience(0.005)
    vain = 0
    for _ in range(200):
        now = 0.0
        decided = patience.decide(now, waiting(), 0.01)
        if not isinstance(decided, Reason):
            vain += 1
            decided = patience.decide(decided, waiting(), 0.01)
        assert decided is Reason.TIMER
        patience.left(decided, joined=0)
    assert vain <= 8


def test_a_wait_that_paid_is_repeated() -> None:
    patience = Patience(0.005)
    for _ in range(20):
        assert patience.limit_s(1.0) == 0.005
        patience.left(Reason.TIMER, joined=3)
