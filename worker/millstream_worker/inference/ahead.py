"""The batch that comes next on a device which is not free yet: whether it still should.

It may lie with a thread here, which looks at the last moment who still wants an answer, or with the
device's own process, which begins it by itself. Either way it can be taken back until it begins.
"""

from __future__ import annotations

from millstream_worker.inference.gauge import Gauge
from millstream_worker.inference.machine import RunsJobs
from millstream_worker.inference.picking import Batch, Picker

#: It is picked anew when this share of a full batch came since.
_STALE = 0.25


class Ahead:
    """The place for that batch, at one device."""

    def __init__(self, device: str, runner: RunsJobs, picker: Picker, gauge: Gauge) -> None:
        self._device = device
        self._runner = runner
        self._picker = picker
        self._gauge = gauge
        #: None as soon as it may have begun.
        self.batch: Batch | None = None

    def reconsider(self) -> None:
        """Take it back when a better one could be formed."""
        batch = self.batch
        if batch is None:
            return
        queue = self._picker.queues[batch.model]
        came = queue.arrivals - batch.arrivals
        full = self._picker.profiles[batch.model].batching.items
        urgent = queue.head is not None and queue.head.rank < min(x.rank for x in batch.items)
        elsewhere = bool(queue.idle - {self._device})
        # It was admitted beside smaller neighbours.
        grown = self._gauge.budget.others > batch.others
        stale = came >= max(1, _STALE * full)
        if (urgent or elsewhere or grown or stale) and self._take_back(batch):
            for notify in queue.on_idle if elsewhere else ():
                notify()

    def let_go(self) -> bool:
        """Somebody gave up: take it back if it would be computed for them; return whether it was.

        What was not handed over is looked through as it begins.
        """
        batch = self.batch
        if batch is None or batch.handed is None or len(batch.live) == len(batch.items):
            return False
        return self._take_back(batch)

    def drop(self) -> None:
        """Take it back, whatever it is: nothing more is to begin."""
        if self.batch is not None:
            self._take_back(self.batch)

    def _take_back(self, batch: Batch) -> bool:
        """Let its items wait again; False when it has begun."""
        if batch.handed is None:
            taken = self._runner.withdraw()
        else:
            taken = batch.taken_back = batch.handed.take_back()
            if taken:
                # Should the thread wait for it already, it hears at once that nothing comes.
                self._runner.withdraw()
        if taken:
            self.batch = None
            self._picker.queues[batch.model].put_back(batch.live)
        return taken
