"""Which models stay on a device, and which make room.

Evicted is what is cheapest to be without: the time to load it again, weighed by how often it is
asked for, for every byte it holds. What came lately stays, or two models would drive each other
out at every batch. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: What was loaded stays so long, or so many batches.
MINIMUM_S = 30.0
MINIMUM_BATCHES = 20


@dataclass(slots=True, kw_only=True)
class Resident:
    """A model on a device."""

    model: str
    bytes: int
    #: How long it took to load.
    reload_s: float
    since: float
    used: float
    batches: int = 0

    def loss(self, now: float) -> float:
        """Return what a byte of it is worth: seconds of loading that it spares, a second."""
        rate = (self.batches + 1) / max(1.0, now - self.since)
        idle_s = max(0.0, now - self.used)
        return self.reload_s * rate / (1.0 + idle_s) / max(1, self.bytes)

    def settled(self, now: float) -> bool:
        """Whether it has been here long enough to be asked to leave."""
        return now - self.since >= MINIMUM_S or self.batches >= MINIMUM_BATCHES


def evictions(
    residents: Iterable[Resident], needed: int, now: float, *, busy: Iterable[str] = ()
) -> list[Resident] | None:
    """Return who has to leave for ``needed`` bytes; None where that much cannot be freed now.

    ``busy`` are models that have work: they leave only once they are settled.
    """
    working = set(busy)
    may_leave = [x for x in residents if x.model not in working or x.settled(now)]
    chosen: list[Resident] = []
    for resident in sorted(may_leave, key=lambda x: (x.model in working, x.loss(now))):
        if needed <= 0:
            break
        chosen.append(resident)
        needed -= resident.bytes
    return chosen if needed <= 0 else None
