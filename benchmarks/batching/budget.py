"""The budget beside a neighbour that grows and shrinks, with a law that begins wrong.

Minutes of a device, played on virtual time: exact, the same every time, and over in seconds. Held
against what the device itself wrote down, not against what the batcher believed.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.batching.faults import MIB, TRUE, Stub, make_service
from benchmarks.batching.virtual import VirtualDevice, machine_of
from benchmarks.batching.workload import lengths
from millstream.errors import InferenceError
from millstream.events import BatchRan, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference.engine import Engine
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.shapes import Shape
from millstream_worker.inference.unit import Device
from tests.simulation.virtual import virtual_time

TOTAL, FRACTION = 512 * MIB, 0.8
CALLERS = 100
#: Batches that may go wrong before the law has learned.
PROBES = 20


class Steady(Stub):
    """The stub on virtual time: a slow device, so that minutes are some thousand batches."""

    def __init__(self, device: VirtualDevice, wrong: float) -> None:
        super().__init__(device, wrong, frozenset())
        self._virtual = device

    @property
    def guess(self) -> Bytes:
        """Right where a small batch would show it, and wrong where large ones hurt."""
        return Bytes(fixed=TRUE.fixed, per_token=TRUE.per_token / self._wrong)

    def load(self, device: str) -> None:
        super().load(device)
        self._virtual.computed_s += 2.0

    def compute(self, shape: Shape) -> None:
        self._virtual.spend(int(TRUE.of(shape)), 0.05 + 1e-4 * shape.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """What another program holds: it drifts, loads at once, and leaves at once, by a seed."""

    points: Sequence[tuple[float, int]]

    @classmethod
    def drawn(cls, seconds: float, seed: int) -> Neighbour:
        """Draw a script."""
        random, points = Random(seed), [(0.0, int(0.3 * TOTAL))]
        while points[-1][0] < seconds:
            at, held = points[-1]
            at += random.uniform(2.0, 12.0)
            share = random.uniform(0.02, 0.3)
            if random.random() < 0.5:
                points.append((at, held))  # until then nothing, and then all at once
                at += 0.001
            points.append((at, int(share * TOTAL)))
        return cls(points=points)

    def __call__(self, at: float) -> int:
        """Return what it holds at a time."""
        for (begin, low), (end, high) in itertools.pairwise(self.points):
            if at < end:
                return int(low + (high - low) * max(0.0, at - begin) / (end - begin))
        return self.points[-1][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of one run."""

    device: VirtualDevice
    batches: Sequence[BatchRan]
    answered: int
    failed: int
    tokens: int


def play(seconds: float, wrong: float, seed: int) -> Played:
    """Have a hundred callers ask for so many virtual seconds."""
    with virtual_time() as loop:
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(_play(seconds, wrong, Neighbour.drawn(seconds, seed)))
        finally:
            asyncio.set_event_loop(None)


async def _play(seconds: float, wrong: float, neighbour: Neighbour) -> Played:
    device, events = VirtualDevice(TOTAL, neighbour), list[Event]()
    stub = Steady(device, wrong)
    place = Device(
        name="virtual",
        uuid="VIRTUAL",
        monitor=device,
        start=lambda backend, _spec: Engine(
            "virtual", backend, lambda: device, lambda: device.computed_s
        ),
        fraction=FRACTION,
        live=device.own,
    )
    loop = asyncio.get_running_loop()
    counts = {"answered": 0, "failed": 0, "tokens": 0}
    waiting = lengths("mixed", 4096, 7)
    numbers = itertools.count()

    async def caller(name: str) -> None:
        options = CallOptions(dedupe=False)
        while loop.time() < seconds:
            number = next(numbers)
            length = waiting[number % len(waiting)]
            try:
                await service.infer("m", [(length, number)], options, run=name)
            except InferenceError:
                counts["failed"] += 1
            else:
                counts["answered"] += 1
                counts["tokens"] += length

    async def sample() -> None:
        while True:
            device.sample()
            await asyncio.sleep(0.1)

    async with make_service(stub, place, events, CALLERS, machine=machine_of(device)) as service:
        sampling = asyncio.ensure_future(sample())
        await asyncio.gather(*(caller(str(n)) for n in range(CALLERS)))
        sampling.cancel()
    batches = [x for x in events if isinstance(x, BatchRan)]
    return Played(device=device, batches=batches, **counts)


def above(played: Played) -> list[float]:
    """Return when use was above the ceiling by more than the neighbour grew meanwhile.

    What the neighbour takes after the reading by which a batch in flight was admitted is beyond
    anybody; and while none is in flight, ours is a model that waits.
    """
    ceiling = int(FRACTION * TOTAL)
    return [
        use.at
        for use in played.device.uses
        if use.computing and use.neighbour + use.ours - ceiling > max(0, use.neighbour - use.since)
    ]


def admitted_above(played: Played) -> list[int]:
    """Return the batches, by number, that were predicted not to fit at the latest reading."""
    spare = TOTAL - int(FRACTION * TOTAL)
    return [
        number
        for number, batch in enumerate(played.batches)
        if batch.predicted > played.device.known[batch.began] - spare
    ]


def measure(minutes: float = 10.0, wrong: float = 3.0, seed: int = 1) -> dict[str, Any]:
    """Play it with a wrong law and with a right one, and return what the gates ask for."""
    seconds = 60.0 * minutes
    learning, tuned = play(seconds, wrong, seed), play(seconds, 1.0, seed)
    learned = learning.batches[PROBES].began
    used = [
        (use.neighbour + use.ours) / (FRACTION * TOTAL)
        for use in learning.device.uses
        if use.computing
    ]
    ratios = sorted(
        x.observed / x.predicted for x in learning.batches[PROBES:] if x.observed and x.predicted
    )
    return {
        "measure": "budget",
        "virtual_minutes": minutes,
        "wrong": wrong,
        "batches": len(learning.batches),
        "items": learning.answered,
        "failed": learning.failed,
        "admitted_above": len(admitted_above(learning)),
        "samples": len(learning.device.uses),
        "samples_above": len(above(learning)),
        "samples_above_once_learned": sum(at >= learned for at in above(learning)),
        "ran_out": learning.device.ran_out,
        "last_failed_batch": max(
            (n for n, x in enumerate(learning.batches) if x.fault), default=-1
        ),
        "goodput_of_tuned": round(learning.tokens / max(1, tuned.tokens), 3),
        "highest_share_of_budget": round(max(used), 3),
        "median_share_of_budget": round(sorted(used)[len(used) // 2], 3),
        "observed_over_predicted_p99": round(ratios[math.ceil(0.99 * len(ratios)) - 1], 3),
    }
