"""Models that are computed here: from a call to items in a queue, and the devices that serve it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from millstream.events import Emit
from millstream.model.inference import CallOptions
from millstream_worker.inference import catalogue
from millstream_worker.inference.backends import Backend
from millstream_worker.inference.declared import Declared, ModelSpec
from millstream_worker.inference.devices import devices_for
from millstream_worker.inference.gauge import Announce, alone
from millstream_worker.inference.intake import Intake
from millstream_worker.inference.laws import Keeps
from millstream_worker.inference.machine import Machine
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.unit import Device, Unit
from millstream_worker.inference.waiting import Waiter

MakesAnnounce = Callable[[str], Announce]


class Units:
    """The devices of this worker, each started when the first model needs it."""

    def __init__(
        self,
        declared: Declared,
        group: TaskGroup,
        *,
        emit: Emit,
        could_grow: Callable[[], bool],
        find: Callable[[ModelSpec, Declared], Sequence[Device]] = devices_for,
        announce: MakesAnnounce = lambda _: alone,
        keeper: Keeps | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.queues: dict[str, ModelQueue] = {}
        self.backends: dict[str, Backend] = {}
        self._declared = declared
        self._group = group
        self._emit = emit
        self._could_grow = could_grow
        self._find = find
        self._announce = announce
        self._keeper = keeper
        self.machine = machine or Machine()
        self._units: dict[str, Unit] = {}

    @property
    def all(self) -> Sequence[Unit]:
        """Every device that is in use."""
        return list(self._units.values())

    async def serving(self, spec: ModelSpec, backend: Backend) -> list[Unit]:
        """Return the devices that serve a model, started."""
        self.backends[spec.name] = backend
        self.queues.setdefault(spec.name, ModelQueue(spec.name))

        def look() -> tuple[Sequence[Device], str]:
            return self._find(spec, self._declared), backend.identity

        found, identity = await self.machine.in_thread(look)
        units = [await self._unit(device) for device in found]
        for unit in units:
            unit.add(spec, backend, identity)
        return units

    async def _unit(self, device: Device) -> Unit:
        unit = self._units.get(device.uuid)
        if unit is None:
            unit = Unit(
                device,
                self.queues,
                self.backends,
                emit=self._emit,
                could_grow=self._could_grow,
                announce=self._announce(device.uuid),
                keeper=self._keeper,
                machine=self.machine,
            )
            self._units[device.uuid] = unit
            await unit.start(self._group)
        return unit

    def dead(self) -> list[str]:
        """Return the devices that died, if none is left that did not."""
        if not all(unit.tenants.dead for unit in self._units.values()):
            return []
        return [unit.device.name for unit in self._units.values()]

    async def close(self) -> None:
        """Give back what the devices hold."""
        for unit in self._units.values():
            await unit.close()


class LocalModel:
    """One model: its queue, and the devices that pull from it."""

    def __init__(self, spec: ModelSpec, units: Units) -> None:
        self.spec = spec
        self._units = units
        self._intake: Intake | None = None
        self._serving: list[Unit] = []
        self._starting = anyio.Lock()

    async def load(self) -> None:
        """Make the model known to its devices; they load it with its first item."""
        async with self._starting:
            if self._intake is None:
                backend = catalogue.make(self.spec)
                self._serving = await self._units.serving(self.spec, backend)
                queue = self._units.queues[self.spec.name]
                in_thread = self._units.machine.in_thread
                self._intake = Intake(self.spec, backend, queue, self._serving, in_thread)

    async def answer(
        self, waiter: Waiter, inputs: Sequence[Any], options: CallOptions, deadline: float
    ) -> list[Any]:
        """Return one answer for each input."""
        if self._intake is None:
            await self.load()
        intake = self._intake
        assert intake is not None
        done = await intake.take(waiter, inputs, options, deadline)
        for unit in self._serving:
            unit.batcher.kick()
        try:
            await done
        except BaseException:
            intake.leave(waiter)
            raise
        return waiter.values

    async def close(self) -> None:
        """There is nothing of its own to close."""

    def waiting(self, now: float) -> tuple[int, float]:
        """Return how many items wait, and how long the oldest has."""
        queue = self._units.queues.get(self.spec.name)
        oldest = queue.oldest() if queue else None
        return len(queue) if queue else 0, 0.0 if oldest is None else now - oldest

    def report(self) -> dict[str, Any]:
        """Return what there is to say of the model and its devices."""
        devices = []
        for unit in self._serving:
            profile = unit.profiles[self.spec.name]
            resident = unit.tenants.residents.get(self.spec.name)
            devices.append(
                {
                    "device": unit.device.name,
                    "uuid": unit.device.uuid,
                    "loaded": resident is not None,
                    "bytes": resident.bytes if resident else 0,
                    "batches": resident.batches if resident else 0,
                    "slots": unit.batcher.decoding.in_use(self.spec.name),
                    "usable": unit.gauge.budget.reading.usable,
                    "ceiling": unit.gauge.budget.ceiling,
                    "others": unit.gauge.budget.others,
                    "held": unit.gauge.own.reserved,
                    "headroom": unit.gauge.headroom,
                    "predicted": profile.last_predicted,
                    "observed": profile.last_observed,
                    "guard": round(profile.footprint.guard, 3),
                    "law": unit.laws.source(self.spec.name),
                    "isolation": "process" if unit.tenants.engine.killable else "thread",
                    "fixed_s": profile.costs.law.overhead,
                }
            )
        loaded = any(device["loaded"] for device in devices)
        queue = self._units.queues.get(self.spec.name)
        return {
            "state": "loaded" if loaded else "ready",
            "waiting": len(queue) if queue else 0,
            "devices": devices,
        }
