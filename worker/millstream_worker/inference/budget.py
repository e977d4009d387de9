"""How many bytes may be used on a device now.

In one sentence: a worker never starts a batch or loads a model if that is predicted to take the
*total* use of the device, ours and everyone else's, above ``fraction`` of its usable memory.
``share`` caps our own part besides. The first protects neighbours, the second divides a card.

It does not know where the readings come from.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MIB = 1024 * 1024
#: What a neighbour gave back is believed when it was seen this often in a row.
_STABLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The memory of a device at one moment, in bytes."""

    #: What programs can have at all: the whole without what the driver keeps.
    usable: int
    #: What all programs use, this one included.
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What this worker holds of a device, by its own allocator's account, in bytes."""

    #: Taken from the device, what the runtime itself needs included.
    reserved: int = 0
    #: Of that, held by nothing: it can be used again unless it is in pieces.
    cached: int = 0


class Budget:
    """The budget of one device. Feed it with readings; ask it for headroom."""

    def __init__(self, fraction: float, share: float | None = None, *, reuse: float = 0.9) -> None:
        self.fraction = fraction
        self.share = share
        self._reuse = reuse
        self._others: deque[int] = deque(maxlen=_STABLE)
        self._reading = Reading(usable=0, used=0)
        #: Bytes that neighbours have announced and not taken yet.
        self.announced = 0

    @property
    def reading(self) -> Reading:
        """The latest reading."""
        return self._reading

    @property
    def others(self) -> int:
        """What neighbours hold or have announced: believed at once when it grows, late when not."""
        return max(self._others, default=0) + self.announced

    @property
    def ceiling(self) -> int:
        """What may be in use in all."""
        return int(self.fraction * self._reading.usable)

    @property
    def safety(self) -> int:
        """What is left free in any case: counters lag, and runtimes take a little on their own."""
        return max(min(256 * MIB, self._reading.usable // 20), self._reading.usable // 50)

    def read(self, reading: Reading, own: Own) -> None:
        """Take a reading of the device, made together with our own account."""
        self._reading = reading
        self._others.append(max(0, reading.used - own.reserved))

    def fragmented(self) -> None:
        """The allocator had to ask the device anew: what it keeps is in pieces."""
        self._reuse = max(0.0, self._reuse - 0.1)

    @property
    def allowance(self) -> int:
        """What may be ours in all, beside what neighbours hold."""
        return self._ours(self.others)

    def headroom(self, own: Own, *, alone: bool = False) -> int:
        """Return how many bytes more may be used at the peak of what starts next.

        ``alone``: if there were no neighbours.
        """
        allowance = self._ours(0) if alone else self.allowance
        return int(allowance - own.reserved + self._reuse * own.cached)

    def _ours(self, others: int) -> int:
        usable = self._reading.usable
        most = min(self.ceiling, usable - self.safety) - others
        return most if self.share is None else min(most, int(self.share * usable))

    def largest(self, held: int) -> int:
        """Return what could ever be used at once by us, with ``held`` bytes held throughout."""
        share = self.fraction if self.share is None else min(self.share, self.fraction)
        return int(share * self._reading.usable) - held
