"""A device that is not there: memory by script, neighbours included, that runs out for real.

What the laws of batching promise is shown on it where there is no device: a batch that takes more
than is left fails as on one. It stands in for the driver and for the allocator at once.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream_worker.inference.budget import Own, Reading


class SimulatedOutOfMemory(MemoryError):
    """The simulated device has no room."""


class SimulatedDevice:
    """A device of ``total`` bytes. ``neighbour`` says what others hold at this moment."""

    def __init__(self, total: int, neighbour: Callable[[], int] = lambda: 0) -> None:
        self.total = total
        self.neighbour = neighbour
        #: The largest total use that was seen, and how often memory ran out.
        self.highest = 0
        self.ran_out = 0
        self._held = 0
        self._now = 0
        self._peak = 0
        self._before = 0
        self._limit: int | None = None

    # -- the monitor ---------------------------------------------------------------------------

    def read(self) -> Reading:
        """Return what is usable and used."""
        return Reading(usable=self.total, used=min(self.total, self.neighbour() + self._now))

    # -- what a model takes --------------------------------------------------------------------

    def take(self, size: int) -> None:
        """Take bytes for longer: the weights of a model."""
        self._use(size)
        self._held += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._held -= size
        self._now = self._held

    def compute(self, size: int) -> None:
        """Take bytes for the time of a batch."""
        self._use(size)
        self._now = self._held

    def _use(self, size: int) -> None:
        wanted = self._now + size
        refused = self._limit is not None and wanted > self._limit
        if refused or wanted + self.neighbour() > self.total:
            self.ran_out += 1
            self._now = self._held
            raise SimulatedOutOfMemory("the simulated device is out of memory")
        self._now = wanted
        self._peak = max(self._peak, wanted)
        self.highest = max(self.highest, wanted + self.neighbour())

    # -- the allocator -------------------------------------------------------------------------

    def limit(self, size: int | None) -> None:
        """Refuse what would take more than that in all."""
        self._limit = size

    def begin(self) -> None:
        """A batch starts."""
        self._peak = self._before = self._held

    def peak(self) -> int | None:
        """Return the peak bytes since `begin`, above what was held then."""
        return self._peak - self._before

    def held(self) -> int:
        """Return the bytes that models hold."""
        return self._held

    def own(self) -> Own:
        """Return what is taken."""
        return Own(reserved=self._now)

    def fragmented(self) -> bool:
        """Never."""
        return False

    def release(self) -> None:
        """Give back what nothing holds."""
        self._now = self._held
