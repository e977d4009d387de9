"""How long this process may believe that it leads.

Trust ends before the term does, and is counted from when the renewal was *sent*: what the network
kept for itself is on our side of the bill. The duties of a leader run inside ``scope``, which is
cut at that moment whether or not anybody gets round to asking.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Term:
    """One election's worth of leading. Extended by the elector, lived in by the duties."""

    def __init__(self, fence: int, mono: Callable[[], float]) -> None:
        #: Grows with every election; what a leader writes under its seat's hash tag names it.
        self.fence = fence
        self.scope = anyio.CancelScope()
        self._mono = mono
        self._trusted_until = float("-inf")
        self._ended = False

    def trust(self, until: float) -> None:
        """Believe in it until then, by the monotonic clock."""
        self._trusted_until = until
        self.scope.deadline = anyio.current_time() + until - self._mono()

    def end(self) -> None:
        """Cease to lead: the duties are cut short."""
        self._ended = True
        self.scope.cancel()

    @property
    def over(self) -> bool:
        """Whether it was ended or has run out. It does not begin again; there may be another."""
        return self._ended or self.scope.cancel_called

    @property
    def trusted(self) -> bool:
        """Whether a duty may be done."""
        return not self.over and self._mono() < self._trusted_until
