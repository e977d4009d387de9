"""How fast runs come, and how long each holds its slot, from counters that are read anyway.

The streams count what they were ever given, and what is over is that less what is there. Little's
law does the rest: the time that slots were held, divided by how many holds ended, is how long one
lasts. So nobody has to time a run, and a run costs nothing more.

The past fades: a rate is that of about the last minute, a service time that of the last five.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Seconds in which the weight of a moment falls to a third.
ARRIVALS_S = 60.0
SERVICE_S = 300.0


class Rates:
    """The rates of one queue. What was known before may be handed in, as by another leader."""

    def __init__(
        self, *, arrival_rate: float | None = None, service_s: float | None = None
    ) -> None:
        self._seen: _Counters | None = None
        self._arrivals = _Ratio(ARRIVALS_S)
        self._service = _Ratio(SERVICE_S)
        self._service_s = service_s
        if arrival_rate is not None:
            self._arrivals.add(arrival_rate * ARRIVALS_S / 2, ARRIVALS_S / 2, 0.0)

    @property
    def arrival_rate(self) -> float | None:
        """Deliveries a second; None before the second look."""
        return self._arrivals.value

    @property
    def service_s(self) -> float | None:
        """Seconds that a delivery is held; None before the first has ended."""
        return self._service_s

    def look(self, at: float, *, added: int, gone: int, running: int) -> None:
        """Take in the counters as they are at a moment of the monotonic clock."""
        now = _Counters(at, added, gone, running)
        before, self._seen = self._seen, now
        if before is None or at <= before.at:
            return
        if added < before.added or gone < before.gone:
            return  # Redis has forgotten, and counts anew from here

        took = at - before.at
        self._arrivals.add(added - before.added, took, took)
        self._service.add(took * (before.running + running) / 2, gone - before.gone, took)
        # One that has faded says less than what was known before.
        if self._service.weight >= 1:
            self._service_s = self._service.value


@dataclass(frozen=True, slots=True)
class _Counters:
    at: float
    added: int
    gone: int
    running: int


class _Ratio:
    """A sum over another sum, in which what is older counts less."""

    def __init__(self, fades_s: float) -> None:
        self._fades_s = fades_s
        self._top = 0.0
        self.weight = 0.0

    @property
    def value(self) -> float | None:
        return self._top / self.weight if self.weight > 0 else None

    def add(self, top: float, weight: float, took_s: float) -> None:
        kept = math.exp(-took_s / self._fades_s)
        self._top = self._top * kept + top
        self.weight = self.weight * kept + weight
