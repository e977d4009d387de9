"""A device on virtual time: a batch holds its memory for as long as it takes, and nobody waits.

The batcher, the budget and the laws are the real ones; only the thread of the device, its clock
and its memory are played, and every change of its memory is written down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from millstream_worker.inference.budget import Own, Reading
from millstream_worker.inference.machine import Machine
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from millstream_worker.inference.runner import Done, Job

T = TypeVar("T")
#: To be refused takes time too.
_REFUSED_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The device at one moment, in bytes; ``since`` is the neighbour at the reading that counts."""

    at: float
    neighbour: int
    ours: int
    #: What the neighbour held when the monitor was last read before the batch in flight began.
    since: int
    #: Whether a batch of ours is in flight.
    computing: bool


class VirtualDevice(SimulatedDevice):
    """A simulated device whose batches last, on the loop's time."""

    def __init__(self, total: int, neighbour: Callable[[float], int]) -> None:
        super().__init__(total, lambda: neighbour(self.time()))
        #: Seconds that the device has computed in all: the engine's clock.
        self.computed_s = 0.0
        self.uses: list[Use] = []
        #: What was known when a job began: its time -> what was left of the ceiling.
        self.known: dict[float, int] = {}
        self._read = 0
        self._since = 0
        self._in_flight = 0

    def time(self) -> float:
        """Return the time of the loop."""
        return asyncio.get_running_loop().time()

    def read(self) -> Reading:
        """Return what is usable and used: what the budget knows from here on."""
        self._read = self.neighbour()
        return Reading(usable=self.total, used=min(self.total, self._read + self.held_now))

    @property
    def held_now(self) -> int:
        """What is ours, the batch in flight included."""
        return self._held + self._in_flight

    def own(self) -> Own:
        """Return what is taken at this moment."""
        return Own(reserved=self.held_now)

    def spend(self, size: int, seconds: float) -> None:
        """Compute a batch: it takes bytes now, and they are held until it has ended."""
        self.computed_s += _REFUSED_S
        self.compute(size)
        self.computed_s += seconds

    def begin_flight(self) -> None:
        """A job begins: what was last read is what it was admitted by."""
        self._since = self._read
        self.known[self.time()] = self.total - self._read - self._held
        self.begin()

    def fly(self) -> None:
        """What the job computed stays on the device until `land`."""
        self._in_flight = self._peak - self._held
        self.sample()

    def land(self) -> None:
        """The batch in flight has ended."""
        self.sample()
        self._in_flight = 0
        self._peak = self._held

    def sample(self) -> None:
        """Write down what is in use."""
        self.uses.append(
            Use(
                at=self.time(),
                neighbour=self.neighbour(),
                ours=self.held_now,
                since=self._since,
                computing=self._in_flight > 0,
            )
        )


class VirtualRunner:
    """The thread of the device: a job takes as long as the device says that it computed."""

    def __init__(self, device: VirtualDevice) -> None:
        self._device = device
        self._ahead: deque[tuple[Job, Done]] = deque()
        self._in_flight = False

    @property
    def under_way(self) -> int:
        """Jobs that were submitted and have not ended."""
        return len(self._ahead) + self._in_flight

    def submit(self, job: Job, done: Done) -> None:
        """Run a job, once the one before it has ended."""
        assert self.under_way < 2, "at most one job is ahead"
        self._ahead.append((job, done))
        if not self._in_flight:
            self._begin()

    def withdraw(self) -> bool:
        """Take back the job that has not begun; False when it has."""
        if not self._ahead:
            return False
        self._ahead.pop()
        return True

    def close(self) -> None:
        """Begin nothing more."""
        self._ahead.clear()

    def _begin(self) -> None:
        job, done = self._ahead.popleft()
        self._in_flight = True
        before = self._device.computed_s
        self._device.begin_flight()
        try:
            result = job()
        except BaseException as error:  # noqa: BLE001 - for whoever waits for it to judge
            result = error
        self._device.fly()
        took_s = self._device.computed_s - before
        asyncio.get_running_loop().call_later(took_s, self._end, done, result)

    def _end(self, done: Done, result: object) -> None:
        self._device.land()
        self._in_flight = False
        if self._ahead:
            # As the thread does: the next one begins before the loop has heard of the last.
            self._begin()
        done(result)


def machine_of(device: VirtualDevice) -> Machine:
    """Return what stands for threads and clocks on virtual time."""

    async def at_once(function: Callable[[], T], /) -> T:
        return function()

    return Machine(in_thread=at_once, runner=lambda _name: VirtualRunner(device), wall=device.time)
