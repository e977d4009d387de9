"""Faults and budgets on a simulated device, counted: what failed, and what was computed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from benchmarks.batching.workload import lengths
from millstream.errors import InferenceError, InferenceFailed
from millstream.events import DeviceRanOut, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference import catalogue
from millstream_worker.inference.backends import Backend, BackendOptions, Prepared
from millstream_worker.inference.declared import Declared, ModelSpec
from millstream_worker.inference.engine import Engine
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.local import Units
from millstream_worker.inference.machine import Machine
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from millstream_worker.inference.service import InferenceService
from millstream_worker.inference.shapes import Shape, padded
from millstream_worker.inference.unit import Device

MIB = 1 << 20
TRUE = Bytes(fixed=8 * MIB, per_token=40_000.0, per_square=40.0)
WEIGHTS = 200 * MIB


class Stub(Backend):
    """Takes the time and the memory that a law says; ``wrong`` is how far its own guess is off."""

    max_length = 512

    def __init__(self, device: SimulatedDevice, wrong: float, poison: frozenset[int]) -> None:
        super().__init__(BackendOptions(model="m", path=None, options={}))
        self._device, self._wrong, self._poison = device, wrong, poison
        self.computed: list[int] = []
        #: Batches at which memory runs out, counted from 0, and how many there were.
        self.starve: set[int] = set()
        self.batches = 0
        #: Every batch waits for it; and this says that one does.
        self.open, self.reached = threading.Event(), threading.Event()
        self.open.set()

    @property
    def weights(self) -> int:
        return WEIGHTS

    @property
    def guess(self) -> Bytes:
        return Bytes(fixed=TRUE.fixed / self._wrong, per_token=TRUE.per_token / self._wrong)

    def prepare(self, item: Any, options: Any) -> Prepared:
        return Prepared(item, int(item[0]))

    def load(self, device: str) -> None:
        self._device.take(WEIGHTS)

    def unload(self) -> None:
        self._device.give(WEIGHTS)

    def compute(self, shape: Shape) -> None:
        """Take what a batch takes."""
        self._device.compute(int(TRUE.of(shape)))
        time.sleep(0.001 + shape.tokens * 2e-7)

    def run(self, payloads: Sequence[Any], options: Any) -> Sequence[Any]:
        self.reached.set()
        self.open.wait(30)
        self.batches += 1
        if self.batches - 1 in self.starve:
            raise MemoryError("out of memory")
        self.compute(Shape(len(payloads), padded(max(x[0] for x in payloads), 8)))
        if any(x[1] in self._poison for x in payloads):
            raise ValueError("poison")
        self.computed += [x[1] for x in payloads]
        return [x[1] for x in payloads]


@asynccontextmanager
async def make_service(
    stub: Stub,
    place: Device,
    events: list[Event],
    callers: int,
    *,
    machine: Machine | None = None,
    batch_size: int = 32,
) -> AsyncIterator[InferenceService]:
    """Open a service with the stub on a device."""

    def make_units(declared: Declared, group: Any, **options: Any) -> Units:
        given = {**options, "machine": machine}
        return Units(declared, group, find=lambda _spec, _declared: [place], **given)

    made = catalogue.make
    catalogue.make = lambda _spec: stub  # type: ignore[assignment]
    spec = ModelSpec(name="m", backend="stub", batch_size=batch_size)
    try:
        async with InferenceService(
            Declared(models={"m": spec}), emit=events.append, make_units=make_units
        ) as service:
            service.attend(lambda: callers)
            yield service
    finally:
        catalogue.make = made


def simulated(device: SimulatedDevice) -> Device:
    """Return the place of a simulated device."""
    return Device(
        name="sim",
        uuid="SIM",
        monitor=device,
        start=lambda backend, _spec: Engine("sim", backend, lambda: device),
        live=device.own,
    )


@asynccontextmanager
async def stub_service(
    stub: Stub, device: SimulatedDevice, events: list[Event], callers: int, batch_size: int = 32
) -> AsyncIterator[InferenceService]:
    """Open a service on a simulated device, on real time."""
    place = simulated(device)
    async with make_service(stub, place, events, callers, batch_size=batch_size) as service:
        yield service


async def _ask_all(
    service: InferenceService, inputs: Sequence[tuple[int, int]], callers: int = 100
) -> list[Any]:
    answers: list[Any] = [None] * len(inputs)
    options = CallOptions()

    async def caller(number: int) -> None:
        for index in range(number, len(inputs), callers):
            try:
                (answers[index],) = await service.infer(
                    "m", [inputs[index]], options, run=str(number)
                )
            except InferenceError as error:
                answers[index] = error

    await asyncio.gather(*(caller(n) for n in range(callers)))
    return answers


def _inputs(count: int) -> list[tuple[int, int]]:
    return [(length, number) for number, length in enumerate(lengths("mixed", count, 7))]


async def poison(count: int = 2000) -> dict[str, Any]:
    """One input of a hundred raises: only those fail."""
    bad = frozenset(Random(3).sample(range(count), count // 100))
    device, events = SimulatedDevice(80 * 1024 * MIB), list[Event]()
    stub = Stub(device, 1.0, bad)
    async with stub_service(stub, device, events, 100) as service:
        answers = await _ask_all(service, _inputs(count))
    failed = {n for n, x in enumerate(answers) if isinstance(x, InferenceFailed)}
    return {
        "measure": "poison",
        "items": count,
        "poison": len(bad),
        "failed": len(failed),
        "only_they": failed == bad,
        "computed_once": sorted(stub.computed) == sorted(set(range(count)) - bad),
    }


async def cancelled(count: int = 1000) -> dict[str, Any]:
    """Three of ten are given up while they wait: none of those is computed."""
    device, events = SimulatedDevice(80 * 1024 * MIB), list[Event]()
    stub = Stub(device, 1.0, frozenset())
    given_up = frozenset(Random(4).sample(range(count), 3 * count // 10))
    async with stub_service(stub, device, events, count) as service:
        await service.infer("m", [(8, -1)], CallOptions(), run="warm")
        inputs = _inputs(count)
        # The device is held at a batch, so that all of them wait.
        stub.open.clear()
        stub.reached.clear()
        first = asyncio.create_task(service.infer("m", [(8, -2)], CallOptions(), run="first"))
        await asyncio.to_thread(stub.reached.wait, 30)
        tasks = [
            asyncio.create_task(service.infer("m", [x], CallOptions(), run=str(x[1])))
            for x in inputs
        ]
        await asyncio.sleep(0)
        for number in given_up:
            tasks[number].cancel()
        await asyncio.sleep(0)
        stub.open.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)
    return {
        "measure": "cancelled",
        "items": count,
        "given_up": len(given_up),
        "computed_all_the_same": len(given_up & set(stub.computed)),
        "kept_and_computed": len(set(stub.computed) - given_up) - 2,
    }


async def out_of_memory(count: int = 240, positions: int = 12) -> dict[str, Any]:
    """Memory runs out at one batch, whichever: no input fails, and none is computed twice."""
    failed = repeated = found = 0
    for place in range(positions):
        device, events = SimulatedDevice(80 * 1024 * MIB), list[Event]()
        stub = Stub(device, 1.0, frozenset())
        stub.starve = {place}
        async with stub_service(stub, device, events, 100, batch_size=16) as service:
            answers = await _ask_all(service, _inputs(count))
        failed += sum(isinstance(x, Exception) for x in answers)
        repeated += len(stub.computed) - len(set(stub.computed))
        found += sum(isinstance(x, DeviceRanOut) for x in events)
    return {
        "measure": "out of memory",
        "positions": positions,
        "ran_out": found,
        "items": count * positions,
        "failed": failed,
        "computed_twice": repeated,
    }
