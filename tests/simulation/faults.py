"""What breaks, and when: drawn from the seed before the history begins.

Each seed allows only some kinds of fault, so that some histories are rare combinations of two and
others are a bit of everything. The last of them ends at a known time: after it, all must be well.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Fate

#: Kinds of fault, and how often each comes in a history that allows it, on average.
KINDS = {
    "crash": 3.0,
    "freeze": 2.0,
    "zombie": 2.0,
    "block": 1.0,
    "cut": 2.0,
    "lapse": 2.0,
    "outage": 1.0,
    "restart": 1.0,
    "stall": 1.0,
    "clock": 1.5,
    "flaky": 3.0,
    "slow": 1.0,
    "client": 1.0,
    "deploy": 1.5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that breaks."""

    at: float
    kind: str
    #: Which process, where it is one.
    target: int
    #: How long it lasts, in seconds.
    lasts: float
    style: str
    #: A number whose meaning depends on the kind: callbacks before a crash, seconds of a jump.
    amount: float

    def __str__(self) -> str:
        return (
            f"{self.kind} of {self.target} for {self.lasts:.2f} s, {self.style}, {self.amount:+.2f}"
        )


def draw(random: Random, until: float, lease_s: float) -> list[Fault]:
    """Draw the faults of a history, in the order of their times."""
    allowed = [kind for kind in KINDS if random.random() < random.choice([0.1, 0.3, 0.6])]
    faults: list[Fault] = []
    for kind in allowed:
        count = _poisson(random, KINDS[kind])
        faults += [_fault(random, kind, until, lease_s) for _ in range(count)]

    return sorted(faults, key=lambda fault: fault.at)


def _fault(random: Random, kind: str, until: float, lease_s: float) -> Fault:
    at = random.random() * until * 0.9
    lasts = random.choice([0.1, 0.5, 1.2, 2.5]) * lease_s * random.random()
    style = random.choice(["refuse", "hang"])
    amount = float(random.randint(0, 40))
    if kind == "clock":
        amount = random.choice([0.2, 1, 3, 20]) * lease_s * (2 * random.random() - 1)
    return Fault(
        at=at,
        kind=kind,
        target=random.randrange(100),
        lasts=min(lasts, until - at),
        style=style,
        amount=amount,
    )


def _poisson(random: Random, mean: float) -> int:
    """Draw a count: at least one, since the kind is allowed."""
    return 1 + sum(random.random() < mean / 8 for _ in range(7))


class Flakiness:
    """What fate the requests have: none but the fine one, unless somebody says so."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.odds: dict[Fate, float] = {}

    def draw_odds(self) -> None:
        """Become flaky, in a way of its own."""
        self.odds = {
            fate: self._random.choice([0.0, 0.02, 0.1, 0.4]) * self._random.random()
            for fate in Fate
            if fate not in {Fate.FINE, Fate.HELD_UP}
        }

    def fate(self) -> tuple[Fate, float]:
        """Decide what becomes of a request."""
        if not self.odds:
            return Fate.FINE, 0.0
        draw = self._random.random()
        for fate, odds in self.odds.items():
            draw -= odds
            if draw < 0:
                return fate, self._random.random() ** 2 * 6
        return Fate.FINE, 0.0
