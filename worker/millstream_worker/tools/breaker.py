"""A circuit breaker: stop asking a server that does not answer, and find out when it does again.

Promise: after `threshold` failures in a row nothing passes but one probe at a time, each after a
longer pause; any answer closes it. Pure: the clock is handed in, and what counts as a failure
(the transport's, never a tool's own error) is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Circuit(StrEnum):
    """The state of a breaker. The words are label values of a metric."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Pass(StrEnum):
    """What a caller may do."""

    CALL = "call"
    PROBE = "probe"  # send something harmless first, and report what came of it
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class Breaker:
    """The breaker of one server. Each report returns the new state where it changed, else None."""

    now: Callable[[], float]
    threshold: int = 5
    pause_s: float = 1.0
    longest_s: float = 30.0
    state: Circuit = Circuit.CLOSED
    _failures: int = field(default=0, init=False)
    _trips: int = field(default=0, init=False)
    _opens_at: float = field(default=0.0, init=False)

    @property
    def wait_s(self) -> float:
        """Seconds until a probe is let through."""
        return max(0.0, self._opens_at - self.now())

    def ask(self) -> tuple[Pass, Circuit | None]:
        """Ask to call the server. A PROBE must be followed by a report."""
        if self.state is Circuit.CLOSED:
            return Pass.CALL, None
        if self.state is Circuit.HALF_OPEN or self.wait_s > 0:
            return Pass.REFUSED, None
        self.state = Circuit.HALF_OPEN
        return Pass.PROBE, self.state

    def answered(self) -> Circuit | None:
        """Report that the server answered, whatever it said."""
        self._failures = 0
        self._trips = 0
        return self._move(Circuit.CLOSED)

    def failed(self) -> Circuit | None:
        """Report that the server could not be reached, or cut the call."""
        if self.state is Circuit.OPEN:
            # Calls that were under way when it opened: known already, they must not prolong it.
            return None

        self._failures += 1
        if self.state is Circuit.CLOSED and self._failures < self.threshold:
            return None
        self._opens_at = self.now() + min(
            self.longest_s, self.pause_s * 2.0 ** min(self._trips, 16)
        )
        self._trips += 1
        return self._move(Circuit.OPEN)

    def abandoned(self) -> Circuit | None:
        """Report that a probe was cancelled: nothing is known, the next caller may probe."""
        return self._move(Circuit.OPEN) if self.state is Circuit.HALF_OPEN else None

    def _move(self, to: Circuit) -> Circuit | None:
        if to is self.state:
            return None
        self.state = to
        return to
