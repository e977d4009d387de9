"""How long this process may believe that its lease holds.

Trust ends before the lease does, and is counted from when the renewal was *sent*: what the
network kept for itself is on our side of the bill.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Lease:
    """The claim of this process to be alive. Written by the renewer's thread, read by the loop."""

    def __init__(self, length_s: float, mono: Callable[[], float]) -> None:
        self.length_s = length_s
        self._mono = mono
        self._trusted_until = float("-inf")
        #: How often it was found to have run out: others may have taken what we held.
        self.lapses = 0

    def renewed(self, sent: float, *, lapsed: bool) -> None:
        """A renewal that was sent at ``sent`` (by the monotonic clock) was granted."""
        if lapsed:
            self.lapses += 1
        # A tenth is kept for clocks that do not run at the same speed.
        self._trusted_until = sent + 0.9 * self.length_s

    @property
    def trusted(self) -> bool:
        """Whether something new may be started."""
        return self._mono() < self._trusted_until

    async def until_trusted(self) -> None:
        """Return once something new may be started."""
        while not self.trusted:
            await anyio.sleep(min(0.05, self.length_s / 20))
