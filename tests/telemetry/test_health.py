"""Liveness follows progress; Redis and drains concern readiness alone."""

from __future__ import annotations

from millstream.telemetry.health import Health
from tests.telemetry.bench import Clock


def serving(clock: Clock) -> Health:
    health = Health(loop_s=60, claim_s=30, mono=clock)
    health.loop_turned()
    health.store_answered()
    health.claim_turned()
    return health


def test_a_process_that_turns_is_alive_ready_and_started() -> None:
    health = serving(Clock())

    assert health.live().ok
    assert health.ready().ok
    assert health.started().ok
    assert health.ready().reason is None


def test_before_the_first_claim_it_is_alive_but_neither_started_nor_ready() -> None:
    health = Health(mono=Clock())
    health.loop_turned()
    health.store_answered()

    assert health.live().ok
    assert not health.started().ok
    assert not health.ready().ok


def test_a_store_that_never_answered_is_not_ready() -> None:
    health = Health(mono=Clock())
    health.claim_turned()

    assert health.ready().reason == "the store has not answered yet"


def test_a_loop_that_stands_still_is_dead() -> None:
    clock = Clock()
    health = serving(clock)

    clock.now += 29
    health.claim_turned()  # the bound of the claim loop is not what this is about
    clock.now += 29
    health.claim_turned()
    assert health.live().ok
    clock.now += 3

    assert health.live().reason == "the event loop last turned 61 s ago"
    assert not health.ready().ok


def test_a_loop_that_never_turned_is_dead_after_the_bound() -> None:
    clock = Clock()
    health = Health(loop_s=60, mono=clock)
    clock.now += 61

    assert not health.live().ok


def test_a_claim_loop_that_stands_still_is_dead() -> None:
    """The loop turns, and yet nothing is ever taken: only a restart helps."""
    clock = Clock()
    health = serving(clock)

    clock.now += 31
    health.loop_turned()

    assert health.live().reason == "the claim loop last turned 31 s ago"


def test_redis_away_for_an_hour_turns_readiness_red_and_never_liveness() -> None:
    """A restart brings no Redis back; it only loses what is under way."""
    clock = Clock()
    health = serving(clock)

    for _ in range(360):
        clock.now += 10
        health.loop_turned()
        health.claim_turned()  # refused is progress
        health.store_failed("cannot reach Redis")
        assert health.live().ok
        assert health.ready().reason == "cannot reach Redis"

    health.store_answered()
    assert health.ready().ok


def test_a_drain_is_not_ready_and_may_take_its_time() -> None:
    """A drain ends the claim loop; killing the process for that would lose the runs it finishes."""
    clock = Clock()
    health = serving(clock)

    health.draining()
    clock.now += 50

    assert health.live().ok
    assert health.started().ok
    assert health.ready().reason == "draining"


def test_a_blocked_loop_is_dead_also_in_a_drain() -> None:
    clock = Clock()
    health = serving(clock)
    health.draining()
    clock.now += 61

    assert not health.live().ok


def test_the_reason_holds_no_password() -> None:
    health = serving(Clock())

    health.store_failed("cannot reach redis://:hunter2@redis:6379")
    assert health.ready().reason == "cannot reach redis://***@redis:6379"
    health.checked("tools", "https://me:hunter2@search does not answer")
    assert "hunter2" not in str(health.ready())


def test_a_verdict_names_every_check_that_it_rests_on() -> None:
    clock = Clock()
    health = serving(clock)
    health.checked("lease", None)
    clock.now += 31

    assert health.started().checks == {"start": None}
    assert health.live().checks == {
        "event_loop": None,
        "claim_loop": "the claim loop last turned 31 s ago",
    }
    assert list(health.ready().checks) == [
        "drain", "redis", "lease", "start", "event_loop", "claim_loop"
    ]  # fmt: skip
    assert health.loop_age_s() == 31
