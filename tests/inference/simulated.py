"""A simulated device with a model on it, for tests: memory by script, faults by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from millstream.events import BatchRan, Event
from millstream.model.inference import CallOptions
from millstream_worker.inference.backends import Backend, BackendOptions, Prepared
from millstream_worker.inference.batcher import Batcher
from millstream_worker.inference.declared import Declared, ModelSpec
from millstream_worker.inference.engine import Engine
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.local import Units
from millstream_worker.inference.monitors.simulated import SimulatedDevice
from millstream_worker.inference.service import InferenceService
from millstream_worker.inference.shapes import Shape, padded
from millstream_worker.inference.unit import Device

MIB = 1 << 20


@dataclass
class World:
    """What the models of a test do, and what was done to them."""

    device: SimulatedDevice
    #: The true bytes of a batch; what the backend guesses is this divided by `wrong`.
    truth: Bytes = field(default_factory=lambda: Bytes(fixed=1 * MIB, per_token=4096.0))
    wrong: float = 1.0
    weights: int = 10 * MIB
    #: Every input that was computed, by batch, in order.
    computed: list[list[Any]] = field(default_factory=list)
    #: Inputs that raise, and inputs of which the device dies.
    poison: set[Any] = field(default_factory=set)
    deadly: set[Any] = field(default_factory=set)
    #: Called in the thread of the device with each batch, before it is computed.
    before: Callable[[Sequence[Any]], None] = lambda _: None
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    #: The bytes of calls that ran out of memory at these batches, by number.
    starve: set[int] = field(default_factory=set)
    #: The name of inputs that are made up for measuring; empty: nothing is measured.
    probe: str = ""

    @property
    def inputs(self) -> list[Any]:
        """All inputs that were computed to an answer."""
        return [x for batch in self.computed for x in batch]


class Simulated(Backend):
    """Answers each input with itself, reversed. An input is ``(length, name)`` or a text."""

    max_length = 100_000
    call_options: Mapping[str, Any] = {"mode": "plain"}

    def __init__(self, given: BackendOptions, world: World) -> None:
        super().__init__(given)
        self._world = world
        self._weights = int(given.options.get("weights", world.weights))

    @property
    def weights(self) -> int:
        return self._weights

    @property
    def guess(self) -> Bytes:
        true, wrong = self._world.truth, self._world.wrong
        return Bytes(fixed=true.fixed / wrong, per_token=true.per_token / wrong)

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        if item == "no input":
            raise ValueError("that is none")
        length = len(item) if isinstance(item, str) else int(item[0])
        return Prepared(item, length)

    def sample(self, length: int) -> Any:
        return (length, self._world.probe) if self._world.probe else None

    def load(self, device: str) -> None:
        self._world.loads.append(self.given.model)
        self._world.device.take(self._weights)

    def unload(self) -> None:
        self._world.unloads.append(self.given.model)
        self._world.device.give(self._weights)

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        world = self._world
        world.before(payloads)
        if world.deadly.intersection(payloads):
            raise RuntimeError("CUDA error: device-side assert triggered")
        lengths = [self.prepare(x, {}).length for x in payloads]
        shape = Shape(len(payloads), padded(max(lengths), 8))
        if len(world.computed) in world.starve:
            world.starve.discard(len(world.computed))
            raise MemoryError("CUDA out of memory")
        world.device.compute(int(world.truth.of(shape)))
        if world.poison.intersection(payloads):
            raise ValueError(f"cannot compute {min(map(str, world.poison))}")
        world.computed.append(list(payloads))
        return [str(x)[::-1] for x in payloads]


@dataclass
class Bench:
    """A service on simulated devices."""

    service: InferenceService
    world: World
    events: list[Event]
    units: Units

    @property
    def batches(self) -> list[BatchRan]:
        """The batches that ran, failed ones included."""
        return [x for x in self.events if isinstance(x, BatchRan)]

    @property
    def batcher(self) -> Batcher:
        """The loop of the only device."""
        return self.units.all[0].batcher

    async def ask(self, *inputs: Any, model: str = "m", run: str = "r", **options: Any) -> Any:
        """Call a model."""
        return await self.service.infer(model, inputs, CallOptions(**options), run=run)


@asynccontextmanager
async def bench(
    world: World,
    *specs: ModelSpec,
    devices: int = 1,
    held: Callable[[], int] = lambda: 0,
    fraction: float = 0.8,
    keeper: Any = None,
    backend: Callable[[BackendOptions, Any], Backend] = Simulated,
    monkeypatch: Any,
) -> AsyncIterator[Bench]:
    """Open a service whose models are simulated."""
    events: list[Event] = []
    made: list[Units] = []

    def find(_spec: ModelSpec, _declared: Declared) -> list[Device]:
        return [
            Device(
                name=f"sim:{number}",
                uuid=f"SIM-{number}",
                monitor=world.device,
                start=lambda backend, _spec: Engine("sim", backend, lambda: world.device),
                fraction=fraction,
                live=world.device.own,
                kept_as="SIM",
            )
            for number in range(devices)
        ]

    def make_units(declared: Declared, group: Any, **options: Any) -> Units:
        made.append(Units(declared, group, find=find, **{**options, "keeper": keeper}))
        return made[0]

    monkeypatch.setattr(
        "millstream_worker.inference.catalogue.make",
        lambda spec: backend(
            BackendOptions(model=spec.name, path=None, options=spec.options), world
        ),
    )
    declared = Declared(models={x.name: x for x in specs or (ModelSpec(name="m", backend="sim"),)})
    async with InferenceService(declared, emit=events.append, make_units=make_units) as service:
        service.attend(held)
        bench = Bench(service, world, events, units=None)  # type: ignore[arg-type]
        for name in declared.models:
            await service._model(name).load()
        bench.units = made[0]
        yield bench


async def all_of(*calls: Any) -> list[Any]:
    """Await calls at the same time; return each one's value or error."""
    results: list[Any] = [None] * len(calls)

    async def one(index: int, call: Any) -> None:
        try:
            results[index] = await call
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            results[index] = error

    async with anyio.create_task_group() as group:
        for index, call in enumerate(calls):
            group.start_soon(one, index, call)
    return results
