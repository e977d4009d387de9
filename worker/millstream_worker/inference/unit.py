"""Puts the parts of one device together, and keeps them running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from millstream.events import Emit
from millstream_worker.inference.backends import Backend
from millstream_worker.inference.batcher import Batcher
from millstream_worker.inference.budget import Budget, Own
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.footprint import Footprint
from millstream_worker.inference.gauge import Announce, Gauge, Monitor, alone
from millstream_worker.inference.laws import Forgets, Keeps, Laws
from millstream_worker.inference.machine import Machine
from millstream_worker.inference.patience import Patience
from millstream_worker.inference.picking import Picker
from millstream_worker.inference.profile import Profile
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.tenants import RunsModels, Tenants

#: How long a store that hangs may keep a device from being given back.
_KEEP_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device, and how it is reached."""

    #: ``cpu``, or ``cuda:0``: a label of metrics.
    name: str
    #: Under which the neighbours know it.
    uuid: str
    monitor: Monitor
    #: Makes what runs models there; in a thread here, or in a process.
    start: Callable[[Callable[[str], Backend], Callable[[str], ModelSpec]], RunsModels]
    fraction: float = 0.8
    share: float | None = None
    #: Our own account while a batch runs, where it can be had.
    live: Callable[[], Own | None] = lambda: None
    #: How long it may give no sign of life.
    hang_s: float = 60.0
    #: Under which what is learned of models there is kept; empty: it is not.
    kept_as: str = ""


class Unit:
    """One device at work."""

    def __init__(
        self,
        device: Device,
        queues: Mapping[str, ModelQueue],
        backends: Mapping[str, Backend],
        *,
        emit: Emit,
        could_grow: Callable[[], bool],
        announce: Announce = alone,
        keeper: Keeps | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.device = device
        machine = machine or Machine()
        self.profiles: dict[str, Profile] = {}
        self._queues = queues
        self._specs: dict[str, ModelSpec] = {}
        budget = Budget(device.fraction, device.share)
        self.gauge = Gauge(
            device.name,
            device.monitor,
            budget,
            emit=emit,
            announce=announce,
            live=device.live,
            in_thread=machine.in_thread,
        )
        self.laws = Laws(device.kept_as, keeper or Forgets(), self.profiles)
        runner = machine.runner(f"device {device.name}")
        picker = Picker(queues=queues, profiles=self.profiles, could_grow=could_grow)
        self.tenants = Tenants(
            device.name,
            lambda: device.start(backends.__getitem__, self._specs.__getitem__),
            runner,
            self.gauge,
            self.profiles,
            lambda model: backends[model].weights,
            self.laws,
            emit=emit,
            hang_s=device.hang_s,
            waiting=lambda: [
                model
                for model in self.profiles
                if len(queues[model]) or self.batcher.decoding.in_use(model)
            ],
        )
        self.batcher = Batcher(
            device.name, runner, self.tenants, picker, self.gauge, emit=emit, wall=machine.wall
        )

    def add(self, spec: ModelSpec, backend: Backend, identity: str = "") -> None:
        """Serve a model here."""
        self._specs[spec.name] = spec
        self._queues[spec.name].on_idle.append(self.batcher.kick)
        self._queues[spec.name].on_gave_up.append(self.batcher.let_go)
        self.profiles[spec.name] = Profile(
            model=spec.name,
            batching=spec.batching(
                backend.step, padding=backend.padding, continuous=backend.continuous
            ),
            identity=identity,
            footprint=Footprint(backend.guess),
            patience=Patience(spec.max_wait_s),
        )

    async def start(self, group: TaskGroup) -> None:
        """Begin to serve; the budget is known when this returns."""
        await self.gauge.read()
        group.start_soon(self.gauge.watch, lambda: self.batcher.busy)
        group.start_soon(self.batcher.serve)
        group.start_soon(self.laws.watch)

    def fits_ever(self, model: str, length: int) -> bool:
        """Whether an input could be computed here if all that may be ours were free."""
        profile = self.profiles[model]
        resident = self.tenants.residents.get(model)
        most = self.gauge.budget.largest(resident.bytes if resident else 0)
        return profile.footprint.predict(profile.shape([length]), trusting=True) <= most

    async def close(self) -> None:
        """Give back what the device holds."""
        self.batcher.close()
        with anyio.move_on_after(_KEEP_S):
            await self.laws.keep_all()
        await self.tenants.close()
