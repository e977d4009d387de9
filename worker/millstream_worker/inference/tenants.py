"""The models on one device: loaded when they are needed, evicted when another needs the room.

Promise: nothing is loaded that is predicted not to fit into the budget; a device that died is
started anew, more slowly each time. It knows no queues.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio

from millstream.errors import InferenceRejected, InferenceUnavailable
from millstream.events import DeviceFailed, Emit, ModelEvicted, ModelLoaded
from millstream_worker.inference.budget import Own
from millstream_worker.inference.engine import Bounds, Loaded, Ran
from millstream_worker.inference.gauge import Gauge
from millstream_worker.inference.handing import Handed
from millstream_worker.inference.laws import Laws
from millstream_worker.inference.machine import RunsJobs
from millstream_worker.inference.profile import Profile
from millstream_worker.inference.residency import Resident, evictions
from millstream_worker.inference.shapes import Shape
from millstream_worker.inference.watchdog import patience_s

#: What is measured after a load, smallest first: the first run is not timed.
_SHAPES = ((1, 16), (1, 16), (1, 64), (1, 256), (4, 64), (16, 64), (8, 256))
_LONGEST_PAUSE_S = 60.0
#: The length of what is computed to see whether a device still does.
_CANARY = 16
#: How long a device may take to give back what it holds when the worker leaves.
_CLOSE_S = 5.0


class RunsModels(Protocol):
    """An `Engine`, here or in a child."""

    @property
    def killable(self) -> bool:
        """Whether it can be ended while it hangs."""

    @property
    def occupied(self) -> bool:
        """Whether it was sent something that it has not answered."""

    def load(self, model: str) -> Loaded:
        """Bring a model to the device."""

    def unload(self, model: str) -> Own:
        """Take a model off the device."""

    def run(self, model: str, payloads: Any, options: Any, bounds: Bounds = ...) -> Ran:
        """Run a batch."""

    def hand(self, model: str, payloads: Any, options: Any, bounds: Bounds = ...) -> Handed | None:
        """Give the device a batch to begin by itself; None: it has to be `run`."""

    def advance(self, model: str, joining: Any, leaving: Any, bounds: Bounds = ...) -> Ran:
        """Have a continuous model compute one token of each of its items."""

    def sample(self, model: str, length: int) -> Any:
        """Return a payload for measuring."""

    def release(self) -> Own:
        """Give back what nothing holds."""

    def close(self) -> None:
        """End."""

    def abandon(self) -> None:
        """End at once what hangs, where that is possible; called while something runs."""


class Tenants:
    """The models of one device, and the engine that runs them."""

    def __init__(  # noqa: PLR0917 - the parts of one device
        self,
        device: str,
        start: Callable[[], RunsModels],
        runner: RunsJobs,
        gauge: Gauge,
        profiles: Mapping[str, Profile],
        weights: Callable[[str], int],
        laws: Laws,
        *,
        emit: Emit,
        hang_s: float,
        waiting: Callable[[], list[str]] = list,
    ) -> None:
        self._device = device
        self._start = start
        self.engine = start()
        self._runner = runner
        self._gauge = gauge
        self._profiles = profiles
        self._weights = weights
        self._laws = laws
        self._emit = emit
        self._hang_s = hang_s
        #: Told that a model cannot be served, and why.
        self.on_refused: Callable[[str, Exception], None] = lambda *_: None
        #: The models that have work.
        self._waiting = waiting
        self.residents: dict[str, Resident] = {}
        self._deaths = 0
        self._leaving: list[str] = []

    @property
    def reload_s(self) -> dict[str, float]:
        """The loaded models, and how long each takes to load."""
        return {model: resident.reload_s for model, resident in self.residents.items()}

    def has(self, model: str) -> bool:
        """Whether a model is loaded."""
        return model in self.residents and not self._leaving

    def bytes(self, model: str) -> int:
        """Return what a loaded model holds."""
        resident = self.residents.get(model)
        return resident.bytes if resident else 0

    def used(self, model: str, now: float) -> None:
        """A batch of a model ran."""
        resident = self.residents.get(model)
        if resident is not None:
            resident.used = now
            resident.batches += 1

    @property
    def dead(self) -> bool:
        """Whether the device died and has given no result since."""
        return self._deaths > 0

    def alive(self) -> None:
        """The device gave results."""
        self._deaths = 0

    async def admit(self, model: str, now: float) -> bool:
        """Load a model, making room for it; False when that has to wait."""
        await self._evict(self._leaving)
        self._leaving = []
        if model in self.residents:
            return True
        try:
            needed = self._weights(model)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it cannot be served
            self.on_refused(model, error)
            return True
        smallest = self._profiles[model].footprint.predict(Shape(1, 64))
        if needed + smallest > self._gauge.budget.largest(0):
            self.on_refused(model, _too_large(model, self._device, needed, self._gauge))
            return True
        await self._gauge.announce(needed + smallest)
        if not await self._room(model, needed + smallest, now):
            return False
        await self._load(model, now)
        return True

    async def make_room(self, model: str, now: float) -> bool:
        """Evict what is idle so that a batch of a loaded model fits; False when nothing can go."""
        needed = self._profiles[model].footprint.predict(Shape(1, 64))
        return await self._room(model, needed, now, least=1)

    def evict_idle(self, keep: str) -> None:
        """Have every other model leave before the next batch of this one."""
        self._leaving = [model for model in self.residents if model != keep]

    async def reset(self) -> float:
        """Start the device anew after it died; return for how long to leave it alone."""
        self.residents.clear()
        self._deaths += 1
        await self._do(self.engine.close)
        self.engine = self._start()
        self._gauge.own = Own()
        # The first is a bad input, most likely; a device that is broken must not be hammered.
        return 0.0 if self._deaths <= 2 else min(_LONGEST_PAUSE_S, 0.1 * 2.0**self._deaths)

    async def check(self) -> None:
        """Have the device compute a little: one that hangs is found before it is needed."""
        for model in list(self.residents)[:1]:
            payload = await self._do(functools.partial(self.engine.sample, model, _CANARY))
            ran = payload
            if payload is not None and not isinstance(payload, BaseException):
                job = functools.partial(self.engine.run, model, [payload], {}, self.bounds(0.0))
                ran = await self._do(job)
            if isinstance(ran, BaseException):
                self._emit(DeviceFailed(device=self._device, error=f"while idle: {ran}"))
                await self.reset()

    def bounds(self, predicted_s: float, *, learned: bool = False) -> Bounds:
        """Return what a batch that starts now may take at most."""
        return Bounds(
            seconds=patience_s(self._hang_s, predicted_s, learned=learned),
            bytes=max(0, self._gauge.budget.allowance),
        )

    async def close(self) -> None:
        """Give everything back; a device that hangs is ended where that is possible."""
        self._runner.withdraw()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            if self._runner.under_way < 2:
                await self._do(self.engine.close)
                self._runner.close()
                return
        self.engine.abandon()
        self._runner.close()

    async def _room(self, model: str, needed: int, now: float, *, least: int = 0) -> bool:
        missing = needed - self._gauge.headroom
        if missing <= 0 and not least:
            return True
        others = [x for x in self.residents.values() if x.model != model]
        leaving = evictions(others, max(missing, least), now, busy=self._waiting())
        if leaving is None or not leaving:
            return False
        await self._evict([x.model for x in leaving])
        return True

    async def _evict(self, models: list[str]) -> None:
        for model in models:
            resident = self.residents.pop(model, None)
            if resident is None:
                continue
            own = await self._do(functools.partial(self.engine.unload, model))
            if isinstance(own, Own):
                self._gauge.own = own
            self._emit(ModelEvicted(model=model, device=self._device, bytes=resident.bytes))
            await self._gauge.read()

    async def _load(self, model: str, now: float) -> None:
        loaded = await self._do(lambda: self.engine.load(model))
        if isinstance(loaded, BaseException):
            await self._lost(model)
            return
        self._gauge.own = loaded.own
        if loaded.fault is not None:
            message = f"model {model!r} cannot be loaded: {loaded.fault.message}"
            self.on_refused(model, InferenceRejected(message, cause=loaded.fault.cause))
            return
        self.residents[model] = Resident(
            model=model, bytes=loaded.bytes, reload_s=loaded.seconds, since=now, used=now
        )
        await self._gauge.read()
        known = await self._laws.recall(model)
        # The first run makes libraries ready, whatever is known of the others.
        if not await self._measure(model, _SHAPES[:1] if known else _SHAPES):
            await self._lost(model)
            return
        if not known:
            await self._laws.keep(model)
        self._emit(
            ModelLoaded(model=model, device=self._device, took_s=loaded.seconds, bytes=loaded.bytes)
        )

    async def _lost(self, model: str) -> None:
        """A model killed the device before it answered anybody: it is not tried for ever."""
        self.on_refused(model, InferenceUnavailable(f"the device died while {model!r} loaded"))
        await self.reset()

    async def _measure(self, model: str, shapes: Sequence[tuple[int, int]]) -> bool:
        """Run batches of made-up items, so that the first real ones are predicted well.

        Returns whether the device lives.
        """
        profile = self._profiles[model]
        for position, (items, longest) in enumerate(shapes):
            shape = Shape(min(items, profile.batching.items), longest)
            payload = await self._do(functools.partial(self.engine.sample, model, longest))
            if isinstance(payload, BaseException):
                return await self._lives()
            if payload is None:
                return True
            if profile.footprint.predict(shape) > self._gauge.headroom:
                return True
            payloads, bounds = [payload] * shape.items, self.bounds(0.0)
            ran = await self._do(functools.partial(self.engine.run, model, payloads, {}, bounds))
            if not isinstance(ran, Ran):
                return await self._lives()
            if ran.fault is not None:
                return True
            self._gauge.own = ran.own
            if ran.peak is not None:
                profile.footprint.observe(shape, ran.peak)
            if position:
                profile.costs.observe(shape, ran.seconds)
        return True

    async def _lives(self) -> bool:
        """Ask for next to nothing: what failed may have been a mistake of a backend's."""
        return not isinstance(await self._do(self.engine.release), BaseException)

    async def _do(self, job: Callable[[], Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        self._runner.submit(job, done)
        return await future


def _too_large(model: str, device: str, needed: int, gauge: Gauge) -> InferenceRejected:
    return InferenceRejected(
        f"model {model!r} needs {needed:,} bytes, and {device} may give at most"
        f" {gauge.budget.largest(0):,}; raise gpu_memory_fraction, or serve it elsewhere",
        cause="ModelTooLarge",
    )
