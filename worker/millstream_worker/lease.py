"""How long this process may believe that its lease holds.

Trust ends before the lease does, and is counted from when the renewal was *sent*: what the
network kept for itself is on our side of the bill.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from millstream.store.keys import Lane


class Lease:
    """The claim of this process to be alive. Written by the renewer's thread, read by the loop."""

    def __init__(self, length_s: float, mono: Callable[[], float]) -> None:
        self.length_s = length_s
        self._mono = mono
        self._trusted_until = float("-inf")
        #: How often it was found to have run out: others may have taken what we held.
        self.lapses = 0
        #: Per lane, up to which lapse it was found out what was lost.
        self._compared: dict[Lane, int] = {}
        #: Up to which lapse that was found out in every lane.
        self._known = 0

    def renewed(self, sent: float, *, lapsed: bool) -> None:
        """A renewal that was sent at ``sent`` (by the monotonic clock) was granted."""
        # Where trust had ended the lease may have run out too, and the reply that said so be lost.
        ended = float("-inf") < self._trusted_until <= self._mono()
        if lapsed or ended:
            self.lapses += 1
        # A tenth is kept for clocks that do not run at the same speed.
        self._trusted_until = sent + 0.9 * self.length_s

    def serve(self, lane: Lane) -> None:
        """Have the lease say nothing of a lane whose losses are not known; now there are none."""
        self._compared[lane] = self.lapses
        self._known = min(self._compared.values())

    def leave(self, lane: Lane) -> None:
        """What is held in a lane is asked for no more: nothing is held there."""
        self._compared.pop(lane, None)
        self._known = min(self._compared.values(), default=self.lapses)

    def compared(self, lane: Lane, lapses: int) -> None:
        """What this process holds in a lane was compared, after so many lapses."""
        self._compared[lane] = lapses
        self._known = min(self._compared.values())

    @property
    def trusted(self) -> bool:
        """Whether something new may be started.

        After a lapse that takes more than a renewal: what was lost meanwhile must be known.
        """
        return self._known >= self.lapses and self._mono() < self._trusted_until

    async def until_trusted(self) -> None:
        """Return once something new may be started."""
        while not self.trusted:
            await anyio.sleep(min(0.05, self.length_s / 20))
