"""What breaks, and when: drawn from the seed before the history begins.

Each seed allows only some kinds of fault, so that some histories are rare combinations of two and
others are a bit of everything. The last of them ends at a known time: after it, all must be well.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.network import Fate, Link

#: Kinds of fault: the odds that a history has any of them, and how many more it may have.
KINDS = {
    "crash": (0.5, 5),
    "freeze": (0.4, 4),
    "block": (0.2, 2),
    "cut": (0.4, 4),
    "lapse": (0.4, 4),
    "outage": (0.25, 2),
    "restart": (0.25, 2),
    "stall": (0.25, 2),
    "clock": (0.2, 3),
    "flaky": (0.5, 5),
    "slow": (0.2, 2),
    "client": (0.2, 2),
    "deploy": (0.3, 3),
    "failover": (0.05, 1),
    "flush": (0.03, 0),
}
#: Every so many histories one has no fault at all.
CALM = 0.04


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
    if random.random() < CALM:
        return []

    faults = []
    for kind, (odds, more) in KINDS.items():
        if random.random() < odds:
            count = 1 + random.randint(0, more)
            faults += [_fault(random, kind, until, lease_s) for _ in range(count)]
    return sorted(faults, key=lambda fault: fault.at)


def _fault(random: Random, kind: str, until: float, lease_s: float) -> Fault:
    at = random.random() * until * 0.9
    lasts = random.choice([0.1, 0.5, 1.2, 2.5]) * lease_s * random.random()
    amount = float(random.randint(0, 40))
    if kind == "clock":
        amount = random.choice([0.2, 1, 3, 20]) * lease_s * (2 * random.random() - 1)
    if kind == "failover":
        amount = 0.2 + random.random()
    return Fault(
        at=at,
        kind=kind,
        target=random.randrange(60),
        lasts=min(lasts, until - at),
        style=random.choice(["refuse", "hang"]),
        amount=amount,
    )


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
            if fate is not Fate.FINE
        }

    def fate(self, link: Link) -> tuple[Fate, float]:
        """Decide what becomes of a request."""
        if not self.odds:
            return Fate.FINE, 0.0

        draw = self._random.random()
        for fate, odds in self.odds.items():
            draw -= odds
            if draw < 0:
                return fate, self._random.random() ** 2 * 6

        return Fate.FINE, 0.0
