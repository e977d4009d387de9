"""When does a batch leave? As soon as waiting longer cannot pay.

Waiting is worth something only while another run could still join, and then at most as long as
the fixed cost of a batch: that is all that joining saves. A wait that brought nobody is not
repeated for a while, so a slow neighbour never taxes every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a batch left. The words are a label of a metric."""

    FULL = "full"
    AHEAD = "ahead"  # enough for a good batch, prepared while another ran
    BYTES = "bytes"
    QUIESCENT = "quiescent"
    DEADLINE = "deadline"
    TIMER = "timer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for a device that is free."""

    #: The group that would leave now is as large as a group may be, by count or tokens, or bytes.
    full: bool
    bytes_full: bool
    #: Another run of this process could still add an item.
    could_grow: bool
    #: When the wait began: the oldest item came, or the device became free, whichever was later.
    since: float
    #: When the first deadline needs the launch; infinite where there is none.
    launch_by: float


class Patience:
    """Decides between leaving and waiting, and learns whether waiting pays."""

    #: After a vain wait so many batches leave without one; doubled at the next vain one.
    _FIRST_SKIP, _MOST_SKIPS = 4, 64

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._skip = self._FIRST_SKIP
        self._skipping = 0

    def limit_s(self, fixed_s: float) -> float:
        """Return how long a batch may be waited for at most."""
        return 0.0 if self._skipping else min(self._max_wait_s, fixed_s)

    def decide(self, now: float, waiting: Waiting, fixed_s: float) -> Reason | float:
        """Return why to leave now, or until when to wait."""
        if waiting.full:
            return Reason.FULL
        if waiting.bytes_full:
            return Reason.BYTES
        if not waiting.could_grow:
            return Reason.QUIESCENT
        if now >= waiting.launch_by:
            return Reason.DEADLINE
        until = waiting.since + self.limit_s(fixed_s)
        if now >= until:
            return Reason.TIMER
        return min(until, waiting.launch_by)

    def left(self, reason: Reason, *, joined: int) -> None:
        """A batch left; ``joined`` came while it was waited for."""
        if reason is Reason.TIMER and not self._skipping and joined == 0:
            self._skipping, self._skip = self._skip, min(self._MOST_SKIPS, 2 * self._skip)
        elif self._skipping:
            self._skipping -= 1
        elif joined:
            self._skip = self._FIRST_SKIP
