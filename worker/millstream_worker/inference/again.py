"""The parts of batches that failed: they come before anything else, one at a time.

What becomes of one decides what comes next: which of the others is guilty, and how much fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from millstream_worker.inference.gauge import Gauge
from millstream_worker.inference.mending import Mender
from millstream_worker.inference.picking import Batch, Picker, fits_alone
from millstream_worker.inference.tenants import Tenants


class Again:
    """What one device has to try again. True while there is anything."""

    def __init__(
        self,
        picker: Picker,
        tenants: Tenants,
        mender: Mender,
        gauge: Gauge,
        kick: Callable[[], None],
    ) -> None:
        self._picker = picker
        self._tenants = tenants
        self._mender = mender
        self._gauge = gauge
        self._kick = kick
        self._parts: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, parts: Iterable[Batch]) -> None:
        """Take parts in, in the order in which they are tried, before those that wait already."""
        self._parts.extendleft(reversed(list(parts)))

    def let_wait(self, batch: Batch) -> None:
        """Have a batch that never began wait again: alone, where an item is under suspicion.

        Else with the others, where another device may take it.
        """
        batch.handed = None
        if batch.hunt is not None or any(item.deaths for item in batch.items):
            self.add([batch])
            return
        queue = self._picker.queues[batch.model]
        queue.put_back(batch.live)
        for notify in queue.on_idle if queue.idle else ():
            notify()

    def refuse(self, model: str, error: Exception) -> None:
        """Fail the parts of a model that cannot be served."""
        for batch in [x for x in self._parts if x.model == model]:
            self._parts.remove(batch)
            for item in batch.items:
                item.fail(error)

    async def next(self, now: float) -> Batch | None:
        """Return the part that is tried now; None when there is none, or it has to wait."""
        while self._parts:
            batch = self._parts.popleft()
            batch.items = batch.live
            if not batch.items:
                continue
            if not self._tenants.has(batch.model):
                # Its device died, or has to make room for it first.
                self._parts.appendleft(batch)
                if not await self._tenants.admit(batch.model, now):
                    return None
            elif parts := self._mender.fitted(batch, self._gauge.headroom):
                self.add(parts)
            elif self._may_start(batch):
                return batch
            elif batch.hunt is None and not batch.items[0].deaths:
                # It waits with the others until there is more room.
                self._picker.queues[batch.model].starve(batch.items, now)
                self._kick()
            else:
                self._parts.appendleft(batch)
                return None
        return None

    def _may_start(self, batch: Batch) -> bool:
        """Whether a part of a failed batch is predicted to fit, as any batch that starts."""
        profile, room = self._picker.profiles[batch.model], self._gauge.headroom
        return len(batch.items) > 1 or fits_alone(profile, batch.items[0], room)
