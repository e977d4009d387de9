"""Which lines of an outage are worth writing: the first of each place, then one every ten seconds.

While Redis is away every loop of a process asks it again and again, for every lane and every run.
Promise: the first refusal of a place is written at once, also after that place was served again;
what is left out is counted in the next line. Only lines are left out: metrics count every refusal.
It does not know what a place is, nor when Redis is back for those that do not say so.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.events import StoreFailed, StoreRecovered

#: How far apart the lines of one place are.
EVERY_S = 10.0

#: Places are few, a handful a lane. This holds them to it.
_MOST = 1_000


class Repeats:
    """The places that Redis refuses, each with when that was written last."""

    def __init__(self, mono: Callable[[], float]) -> None:
        self._mono = mono
        #: When a place was written, and how many lines were left out since. Two threads may tell
        #: of one place at a time, and then a count is off by one.
        self._places: dict[str, tuple[float, int]] = {}

    def left_out(self, event: StoreFailed) -> int | None:
        """Return how many lines this one stands for besides itself; None: leave it out, too."""
        now = self._mono()
        written, left = self._places.get(event.during, (now - EVERY_S, 0))
        if now - written < EVERY_S:
            self._places[event.during] = written, left + 1
            return None
        if len(self._places) >= _MOST:
            self._places.clear()
        self._places[event.during] = now, 0
        return left

    def over(self, event: StoreRecovered) -> None:
        """A place is served again: what fails there next is another outage."""
        self._places.pop(event.during, None)
