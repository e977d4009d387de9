"""Models that are computed here: from a call to items in a queue, and the devices that serve it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from millstream.errors import InferenceOverloaded, InferenceRejected, said
from millstream.events import Emit
from millstream.store import codec
from millstream_worker.inference import catalogue
from millstream_worker.inference.backends import Backend, Prepared
from millstream_worker.inference.declared import Declared, ModelSpec
from millstream_worker.inference.devices import devices_for
from millstream_worker.inference.gauge import Announce, alone
from millstream_worker.inference.items import Item, too_large
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.unit import Device, Unit

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
    ) -> None:
        self.queues: dict[str, ModelQueue] = {}
        self.backends: dict[str, Backend] = {}
        self._declared = declared
        self._group = group
        self._emit = emit
        self._could_grow = could_grow
        self._find = find
        self._announce = announce
        self._units: dict[str, Unit] = {}

    @property
    def all(self) -> Sequence[Unit]:
        """Every device that is in use."""
        return list(self._units.values())

    async def serving(self, spec: ModelSpec, backend: Backend) -> list[Unit]:
        """Return the devices that serve a model, started."""
        self.backends[spec.name] = backend
        self.queues.setdefault(spec.name, ModelQueue(spec.name))
        found = await anyio.to_thread.run_sync(self._find, spec, self._declared)
        units = [await self._unit(device) for device in found]
        for unit in units:
            unit.add(spec, backend)
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
        self._backend: Backend | None = None
        self._serving: list[Unit] = []
        self._starting = anyio.Lock()
        #: What is under way, by what is computed.
        self._under_way: dict[tuple[Any, str], Item] = {}

    async def load(self) -> None:
        """Make the model known to its devices; they load it with its first item."""
        async with self._starting:
            if self._backend is None:
                backend = catalogue.make(self.spec)
                self._serving = await self._units.serving(self.spec, backend)
                self._backend = backend

    async def answer(
        self,
        inputs: Sequence[Any],
        options: Any,
        deadline: float,
        waited: list[float],
        answered: Callable[[], None],
    ) -> list[Any]:
        """Return one answer for each input. ``answered`` is called when the last one is there."""
        if self._backend is None:
            await self.load()
        assert self._backend is not None
        variant = self._variant(self._backend, options.backend)
        prepared = await self._prepared(self._backend, inputs, dict(variant))
        for each in prepared:
            self._check(self._backend, each.length)
        items = self._items(inputs, prepared, variant, options, deadline)
        left = len(items)

        def one_more(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                answered()

        for item in items:
            item.answer.add_done_callback(one_more)
        try:
            return [await asyncio.shield(item.answer) for item in items]
        finally:
            for item in items:
                item.wanted -= 1
                waited.append(max(0.0, item.launched - item.queued))

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
                    "usable": unit.gauge.budget.reading.usable,
                    "ceiling": unit.gauge.budget.ceiling,
                    "others": unit.gauge.budget.others,
                    "held": unit.gauge.own.reserved,
                    "headroom": unit.gauge.headroom,
                    "predicted": profile.last_predicted,
                    "observed": profile.last_observed,
                    "guard": round(profile.footprint.guard, 3),
                    "fixed_s": profile.costs.law.fixed,
                }
            )
        loaded = any(device["loaded"] for device in devices)
        return {"state": "loaded" if loaded else "ready", "devices": devices}

    # -- from inputs to items ------------------------------------------------------------------

    def _variant(self, backend: Backend, given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        unknown = set(given) - set(backend.call_options)
        if unknown:
            known = ", ".join(sorted([*backend.call_options, "timeout", "priority", "dedupe"]))
            raise InferenceRejected(
                f"model {self.spec.name!r} takes no option {min(unknown)!r}; it takes {known}",
                cause="UnknownOption",
            )
        return tuple(sorted({**backend.call_options, **given}.items()))

    async def _prepared(
        self, backend: Backend, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> list[Prepared]:
        def prepare() -> list[Prepared]:
            return [backend.prepare(each, options) for each in inputs]

        small = sum(len(x) if isinstance(x, str) else 256 for x in inputs) <= backend.quick_chars
        try:
            return prepare() if small else await anyio.to_thread.run_sync(prepare)
        except Exception as error:
            raise InferenceRejected(
                f"model {self.spec.name!r} cannot take this input: {said(error)}",
                cause=type(error).__name__,
            ) from error

    def _check(self, backend: Backend, length: int) -> None:
        most = backend.max_length
        if most is not None and length > most:
            raise too_large(self.spec.name, length, f"it takes at most {most:,}")
        if length > self.spec.max_tokens:
            raise too_large(self.spec.name, length, f"max_tokens is {self.spec.max_tokens:,}")
        if not any(unit.fits_ever(self.spec.name, length) for unit in self._serving):
            raise too_large(self.spec.name, length, "no device here has the memory for it")

    def _items(
        self,
        inputs: Sequence[Any],
        prepared: Sequence[Prepared],
        variant: tuple[tuple[str, Any], ...],
        options: Any,
        deadline: float,
    ) -> list[Item]:
        assert self._backend is not None
        queue = self._units.queues[self.spec.name]
        if len(queue) + len(prepared) > self.spec.queue:
            raise InferenceOverloaded(
                f"{len(queue):,} inputs wait for model {self.spec.name!r} and {self.spec.queue:,}"
                " may; try later, or add workers",
                cause="InferenceOverloaded",
            )
        now = asyncio.get_running_loop().time()
        items, new = [], []
        share = options.dedupe and self._backend.repeatable
        for given, each in zip(inputs, prepared, strict=True):
            digest = codec.digest(given) if share else ""
            item = self._under_way.get((variant, digest)) if digest else None
            if item is not None and not item.dropped and item.deadline >= deadline:
                item.wanted += 1
            else:
                item = Item(
                    payload=each.payload,
                    length=each.length,
                    variant=variant,
                    queued=now,
                    deadline=deadline,
                    priority=options.priority,
                    answer=asyncio.get_running_loop().create_future(),
                    digest=digest,
                )
                new.append(item)
                if digest:
                    self._remember(item)
            items.append(item)
        queue.add(new)
        for unit in self._serving:
            unit.batcher.kick()
        return items

    def _remember(self, item: Item) -> None:
        place = (item.variant, item.digest)
        self._under_way[place] = item

        def forget(_: object) -> None:
            if self._under_way.get(place) is item:
                del self._under_way[place]

        item.answer.add_done_callback(forget)
