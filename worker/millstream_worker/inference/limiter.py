"""How many calls a server is asked at once: more while it answers quickly, fewer when it does not.

Additive increase, multiplicative decrease: one more for every round of answers while the limit is
in use; a cut when the server says that it is too busy, once for all calls that it said that to,
and when answers take much longer than the quickest of late. Pure but for its counters.
"""

from __future__ import annotations

from collections import deque

_CUT_BUSY, _CUT_SLOW = 0.5, 0.9
#: An answer this many times slower than the quickest of late means that calls queue up there.
_SLOW = 4.0
_WINDOW = 100


class Limit:
    """The limit of one server. ``now`` is any clock that does not go back."""

    def __init__(self, first: int = 8, most: int = 256) -> None:
        self._limit = float(first)
        self._most = most
        self.running = 0
        self._seconds: deque[float] = deque(maxlen=_WINDOW)
        self._cut_at = float("-inf")
        #: Nothing is sent before: the server said so.
        self.closed_until = float("-inf")

    @property
    def limit(self) -> int:
        """Calls that may run at once."""
        return max(1, int(self._limit))

    def admits(self, now: float) -> bool:
        """Whether another call may start."""
        return self.running < self.limit and now >= self.closed_until

    def began(self) -> None:
        """A call was sent."""
        self.running += 1

    def gave_up(self) -> None:
        """A call was abandoned: that says nothing about the server."""
        self.running -= 1

    def answered(self, now: float, sent: float) -> None:
        """An answer came."""
        used = self.running >= self.limit - 1
        self.running -= 1
        took = now - sent
        self._seconds.append(took)
        if took > _SLOW * min(self._seconds) and len(self._seconds) >= 10:
            self._cut(now, sent, _CUT_SLOW)
        elif used:
            self._limit = min(float(self._most), self._limit + 1 / max(1.0, self._limit))

    def refused(self, now: float, sent: float, retry_after: float | None) -> None:
        """The server was too busy, or away."""
        self.running -= 1
        self._cut(now, sent, _CUT_BUSY)
        if retry_after is not None:
            self.closed_until = max(self.closed_until, now + retry_after)

    def _cut(self, now: float, sent: float, factor: float) -> None:
        # Calls that were under way at the last cut say what was known then.
        if sent >= self._cut_at:
            self._limit = max(1.0, self._limit * factor)
            self._cut_at = now
