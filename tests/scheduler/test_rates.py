"""Rates and service times out of counters: right, quick to follow, and never of a made-up past."""

from __future__ import annotations

import math
from random import Random

import pytest

from millstream.model.demand import LEAD, MOST, demand
from millstream_scheduler.rates import Rates


def test_before_the_second_look_nothing_is_known() -> None:
    rates = Rates()
    rates.look(0, added=10, gone=5, running=5)

    assert (rates.arrival_rate, rates.service_s) == (None, None)


def test_a_steady_flow_is_measured_as_it_is() -> None:
    """Two a second, each held for thirty seconds: sixty at once."""
    rates = Rates()
    for step in range(200):
        rates.look(step * 5.0, added=10 * step, gone=max(0, 10 * step - 60), running=60)

    assert rates.arrival_rate == pytest.approx(2.0)
    assert rates.service_s == pytest.approx(30.0, rel=0.01)


def test_a_random_flow_is_measured_within_a_few_percent() -> None:
    """Little's law asks for no particular distribution."""
    rng = Random(3)
    arrivals = [rng.uniform(0, 1200) for _ in range(2400)]
    spans = [(at, at + rng.lognormvariate(2.0, 1.0)) for at in arrivals]
    mean = math.exp(2.5)
    rates = Rates()
    for now in range(0, 1201, 10):
        rates.look(
            now,
            added=sum(began <= now for began, _ in spans),
            gone=sum(ended <= now for _, ended in spans),
            running=sum(began <= now < ended for began, ended in spans),
        )

    assert rates.arrival_rate == pytest.approx(2.0, rel=0.2)
    assert rates.service_s == pytest.approx(mean, rel=0.15)


def test_a_rise_is_followed_within_a_minute() -> None:
    rates = Rates()
    added = 0
    for step in range(41):
        added += 5 if step <= 20 else 50
        rates.look(step * 5.0, added=added, gone=0, running=0)

    assert rates.arrival_rate is not None
    assert rates.arrival_rate > 7


def test_counters_that_began_anew_tell_nothing() -> None:
    """Redis was restarted without its data: a negative rate would scale the fleet in."""
    rates = Rates()
    rates.look(0, added=1000, gone=900, running=10)
    rates.look(10, added=1100, gone=1000, running=10)
    known = (rates.arrival_rate, rates.service_s)
    rates.look(20, added=5, gone=0, running=5)
    assert (rates.arrival_rate, rates.service_s) == known
    rates.look(30, added=105, gone=100, running=5)

    assert rates.arrival_rate == pytest.approx(10.0)


def test_a_service_time_that_faded_is_kept_until_a_run_ends_again() -> None:
    """A night without runs must not end with a made-up number."""
    rates = Rates(arrival_rate=1.0, service_s=12.0)
    for step in range(1000):
        rates.look(step * 5.0, added=0, gone=0, running=0)

    assert rates.service_s == 12.0
    assert rates.arrival_rate == pytest.approx(0.0, abs=1e-6)


# -- demand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "arrival_rate", "service_s", "expected"),
    [
        ((3, 4, 2), None, None, 9),
        ((3, 4, 2), 0.1, 10.0, 9),
        ((3, 4, 2), 1.5, 10.0, 15),
        # A service time that grows without end: runs hang, and more pods would not help.
        ((3, 4, 2), 2.0, 1e6, 9 * LEAD),
        ((0, 0, 0), 2.0, 10.0, 0),
        ((2**40, 0, 0), None, None, MOST),
        ((-1, 4, 0), None, None, 4),
    ],
)
def test_demand(
    there: tuple[int, int, int],
    arrival_rate: float | None,
    service_s: float | None,
    expected: float,
) -> None:
    waiting, running, due = there

    assert (
        demand(
            waiting=waiting,
            running=running,
            due=due,
            arrival_rate=arrival_rate,
            service_s=service_s,
        )
        == expected
    )
