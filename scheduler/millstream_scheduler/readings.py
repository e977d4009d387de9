"""What this process knows of its queues: the last reading of each, and how old it is.

Promise: a reading that is too old is an error and never a number. It is kept by the leader's
gauges, or by what a follower has read of the leader's; whoever asks causes no call of Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio

from millstream.errors import StaleReading
from millstream.events import QueueSampled
from millstream.store.samples import Sample


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading, and when it was taken by the monotonic clock of this process."""

    sampled: QueueSampled
    at: float


class Readings:
    """The last reading of each queue. ``stale_s``: how old one may be to be believed."""

    def __init__(self, queues: Iterable[str], *, stale_s: float, mono: Callable[[], float]) -> None:
        self.queues = tuple(dict.fromkeys(queues))
        self.stale_s = stale_s
        self._mono = mono
        self._last: dict[str, Reading] = {}
        self._changed = anyio.Event()

    def keep(self, sampled: QueueSampled, age_s: float = 0.0) -> None:
        """Take in a reading, unless a newer one is known."""
        at = self._mono() - age_s
        known = self._last.get(sampled.queue)
        if sampled.queue in self.queues and (known is None or at >= known.at):
            self._last[sampled.queue] = Reading(sampled, at)
            self._changed.set()
            self._changed = anyio.Event()

    def last(self, queue: str) -> QueueSampled | None:
        """Return the last reading, however old it is."""
        found = self._last.get(queue)
        return found.sampled if found else None

    def fresh(self, queue: str) -> Reading:
        """Return the reading of a queue. Raises `StaleReading`."""
        found = self._last.get(queue)
        age_s = None if found is None else self._mono() - found.at
        if found is None or age_s is None or age_s > self.stale_s:
            raise StaleReading(queue, age_s, self.stale_s)
        return found

    def age_s(self, reading: Reading) -> float:
        """Return how old a reading is."""
        return max(0.0, self._mono() - reading.at)

    def samples(self) -> list[Sample]:
        """Return all readings with their ages, to be published."""
        now = self._mono()
        return [Sample(each.sampled, max(0.0, now - each.at)) for each in self._last.values()]

    async def changed(self) -> None:
        """Return once another reading has come."""
        await self._changed.wait()
