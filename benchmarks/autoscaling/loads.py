"""When runs come, and how long each holds its slot. All of it from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A kind of traffic. ``arrivals`` yields times and service times in order, without end."""

    name: str
    says: str
    arrivals: Callable[[Random], Iterator[tuple[float, float]]]


def steady(rng: Random) -> Iterator[tuple[float, float]]:
    """Four runs a second of twenty seconds: eighty at once."""
    return _poisson(rng, lambda _: 4.0, 4.0, lambda: rng.expovariate(1 / 20))


def diurnal(rng: Random) -> Iterator[tuple[float, float]]:
    """A day in four hours: a tenth of the peak, the peak, and back; runs of twenty seconds."""

    def rate(now: float) -> float:
        return 6.0 * (0.55 - 0.45 * math.cos(2 * math.pi * now / (4 * HOUR)))

    return _poisson(rng, rate, 6.0, lambda: rng.expovariate(1 / 20))


def burst(rng: Random) -> Iterator[tuple[float, float]]:
    """Quiet, and every forty minutes five minutes of sixteen times as much."""

    def rate(now: float) -> float:
        return 8.0 if now % 2400 > 2100 else 0.5

    return _poisson(rng, rate, 8.0, lambda: rng.expovariate(1 / 20))


def long(rng: Random) -> Iterator[tuple[float, float]]:
    """Long runs in bursts: two minutes each, and for fifteen of every forty minutes many."""

    def rate(now: float) -> float:
        return 2.0 if now % 2400 > 1500 else 0.1

    return _poisson(rng, rate, 2.0, lambda: rng.expovariate(1 / 120))


def agents(rng: Random) -> Iterator[tuple[float, float]]:
    """Agents: sessions that fan out, and runs of which a few take a hundred times the median."""

    def service() -> float:
        return min(3600.0, rng.lognormvariate(math.log(25), 1.5))

    now = 0.0
    while True:
        now += rng.expovariate(1 / 12)
        # A session starts between one and a dozen runs within a few seconds.
        began = sorted(now + rng.uniform(0, 5) for _ in range(rng.randint(1, 12)))
        yield from ((at, service()) for at in began)


def _poisson(
    rng: Random, rate: Callable[[float], float], most: float, service: Callable[[], float]
) -> Iterator[tuple[float, float]]:
    """Arrivals at a rate that changes: too many are made, and thinned."""
    now = 0.0
    while True:
        now += rng.expovariate(most)
        if rng.random() * most < rate(now):
            yield now, service()


LOADS: Mapping[str, Load] = {
    load.name: load
    for load in (
        Load(name="steady", says="4 runs a second of 20 s", arrivals=steady),
        Load(name="diurnal", says="a day in four hours, 0.6 to 6 runs a second", arrivals=diurnal),
        Load(
            name="burst", says="0.5 runs a second, and 8 for 5 of every 40 minutes", arrivals=burst
        ),
        Load(
            name="long",
            says="runs of two minutes: 0.1 a second, 2 for 15 of every 40 minutes",
            arrivals=long,
        ),
        Load(name="agents", says="sessions that fan out, run times log-normal", arrivals=agents),
    )
}
