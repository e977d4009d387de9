"""Keeps the budget of a device up to date: reads the device, and tells the neighbours.

Readings are made in a thread, a few times a second while there is work. What this worker holds
and plans is announced to the others on the device, and what they announced counts as used: two
workers that see the same free memory do not both take it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from millstream.events import DeviceFailed, DeviceSampled, Emit
from millstream_worker.inference.budget import Budget, Own, Reading
from millstream_worker.inference.machine import InThread, in_thread

#: Between two readings: while there is work, and while there is none.
BUSY_S = 0.2
IDLE_S = 2.0
#: Between two announcements, and how long one is believed.
ANNOUNCE_S = 1.0
#: After so many readings in vain nothing new is started: what was read last is too old.
_BLIND = 10
BELIEVED_S = 5.0


class Monitor(Protocol):
    """Reads the memory of a device. May block; called in a thread."""

    def read(self) -> Reading:
        """Return what is usable and used now."""


#: Tells the neighbours (held, planned) bytes; returns what they plan beyond what they hold.
Announce = Callable[[int, int], Awaitable[int]]


async def alone(held: int, planned: int) -> int:
    """Announce nothing: there are no neighbours that could be told."""
    del held, planned
    return 0


class Gauge:
    """The budget of one device, and what feeds it."""

    def __init__(
        self,
        device: str,
        monitor: Monitor,
        budget: Budget,
        *,
        emit: Emit,
        announce: Announce = alone,
        live: Callable[[], Own | None] = lambda: None,
        in_thread: InThread = in_thread,
    ) -> None:
        self.budget = budget
        self.own = Own()
        #: Bytes that what runs for long may come to take: nothing else is started with them.
        self.claimed = 0
        #: Bytes that the next batches may take at most, for the neighbours.
        self.planned = 0
        #: Called after each reading.
        self.on_read: Callable[[], None] = lambda: None
        self._device = device
        self._monitor = monitor
        self._emit = emit
        self._announce = announce
        #: Our own account at this moment, where it can be had while a batch runs.
        self._live = live
        self._in_thread = in_thread
        self._failures = 0

    @property
    def headroom(self) -> int:
        """Bytes that what starts next may take."""
        return 0 if self._failures >= _BLIND else self.budget.headroom(self.own) - self.claimed

    async def read(self) -> None:
        """Read the device once."""
        reading, own = await self._in_thread(self._read)
        if own is not None:
            self.own = own
        self.budget.read(reading, self.own)
        self.on_read()

    async def announce(self, planned: int) -> None:
        """Tell the neighbours what is about to be taken, and hear what they plan."""
        self.budget.announced = await self._announce(self.own.reserved, planned)

    async def watch(self, busy: Callable[[], bool]) -> None:
        """Read and announce for ever."""
        said = 0.0
        while True:
            try:
                await self.read()
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, it may come back
                self._failures += 1
                if self._failures == _BLIND:
                    self._emit(DeviceFailed(device=self._device, error=f"not readable: {error}"))
            if anyio.current_time() - said >= ANNOUNCE_S:
                said = anyio.current_time()
                await self.announce(self.planned)
                self._tell()
            await anyio.sleep(BUSY_S if busy() else IDLE_S)

    def _read(self) -> tuple[Reading, Own | None]:
        return self._monitor.read(), self._live()

    def _tell(self) -> None:
        self._emit(
            DeviceSampled(
                device=self._device,
                usable=self.budget.reading.usable,
                others=self.budget.others,
                held=self.own.reserved,
                headroom=self.headroom,
            )
        )
