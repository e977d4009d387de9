"""Runs backends: loads and unloads them, runs batches, and says what that took.

Everything here is called by the one thread that belongs to a device, in this process or in a
child. A failure never leaves as an exception: it becomes a `Fault`, which holds on to no memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from millstream_worker.inference.backends import Advanced, Backend, Joining
from millstream_worker.inference.budget import Own
from millstream_worker.inference.faults import Fault, FaultKind, fault_of, free


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of a batch."""

    results: Sequence[Any] | None = None
    fault: Fault | None = None
    seconds: float = 0.0
    #: Peak bytes above what was held before; None where nobody measures.
    peak: int | None = None
    own: Own = field(default_factory=Own)
    #: The allocator had to ask the device anew since last time.
    fragmented: bool = False
    #: What a continuous model did instead of giving results.
    advanced: Advanced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of a load."""

    fault: Fault | None = None
    seconds: float = 0.0
    bytes: int = 0
    own: Own = field(default_factory=Own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a batch may take at most, enforced where that is possible."""

    #: After so many seconds the device counts as hung; None: never.
    seconds: float | None = None
    #: Bytes of the device that may be ours in all while it runs; None: whatever there is.
    bytes: int | None = None


UNBOUNDED = Bounds()


class Memory(Protocol):
    """The allocator of a device, as far as batches are measured by it."""

    def limit(self, size: int | None) -> None:
        """Refuse from now on what would take more than ``size`` bytes from the device in all."""

    def begin(self) -> None:
        """A batch starts."""

    def peak(self) -> int | None:
        """Return the peak bytes since `begin`, above what was held then."""

    def held(self) -> int:
        """Return the bytes that are held by something."""

    def own(self) -> Own:
        """Return what this process has taken from the device."""

    def fragmented(self) -> bool:
        """Whether the allocator had to ask the device anew since this was last asked."""

    def release(self) -> None:
        """Give back what nothing holds."""


class NoMemory:
    """Stands where nobody counts bytes of a batch: on the host."""

    def limit(self, size: int | None) -> None:
        """Nobody could refuse anything."""

    def begin(self) -> None:
        """There is nothing to reset."""

    def peak(self) -> int | None:
        """Nobody knows."""
        return None

    def held(self) -> int:
        """Nobody knows."""
        return 0

    def own(self) -> Own:
        """Nobody knows."""
        return Own()

    def fragmented(self) -> bool:
        """No."""
        return False

    def release(self) -> None:
        """There is nothing to give back."""


class EngineDied(Exception):
    """The process that runs a device has ended."""


class Engine:
    """The loaded models of one device."""

    #: A thread that hangs cannot be ended.
    killable = False
    #: Nothing is sent anywhere.
    occupied = False

    def __init__(
        self,
        device: str,
        make: Callable[[str], Backend],
        memory: Callable[[], Memory],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device = device
        self._make = make
        #: Made in the thread of the device: it may import a large library.
        self._make_memory = memory
        self._memory: Memory = NoMemory()
        self._ready = False
        self._clock = clock
        self._backends: dict[str, Backend] = {}

    def load(self, model: str) -> Loaded:
        """Bring a model to the device."""
        began = self._clock()
        before = 0
        fault = None
        try:
            if not self._ready:
                self._memory, self._ready = self._make_memory(), True
            # A batch is tried again in parts when it is refused; a model has none.
            self._memory.limit(None)
            before = self._memory.held()
            backend = self._make(model)
            backend.load(self._device)
        except Exception as error:  # noqa: BLE001 - whatever it is, others may still be served
            fault = fault_of(error)
        if fault is not None:
            free(fault.kind is FaultKind.MEMORY)
            self._memory.release()
            return Loaded(fault=fault, own=self._memory.own())

        self._backends[model] = backend
        return Loaded(
            seconds=self._clock() - began,
            bytes=max(backend.weights, self._memory.held() - before),
            own=self._memory.own(),
        )

    def unload(self, model: str) -> Own:
        """Take a model off the device; return what is held then."""
        backend = self._backends.pop(model, None)
        if backend is not None:
            backend.unload()
        del backend
        free(error_was_memory=True)
        self._memory.release()
        return self._memory.own()

    def run(
        self,
        model: str,
        payloads: Sequence[Any],
        options: Mapping[str, Any],
        bounds: Bounds = UNBOUNDED,
    ) -> Ran:
        """Run a batch."""
        began = self._clock()
        results, fault = None, None
        self._memory.limit(bounds.bytes)
        self._memory.begin()
        try:
            results = list(self._backends[model].run(payloads, options))
        except Exception as error:  # noqa: BLE001 - sorted by what it calls for
            fault = fault_of(error)
        # The block is left: the exception no longer pins the tensors of its frames.
        if fault is None and (results is None or len(results) != len(payloads)):
            fault = _miscounted(model, results, payloads)
        return self._ran(began, fault, results=None if fault else results)

    def advance(
        self,
        model: str,
        joining: Sequence[Joining],
        leaving: Sequence[int],
        bounds: Bounds = UNBOUNDED,
    ) -> Ran:
        """Have a continuous model compute one token of each of its items."""
        began = self._clock()
        advanced, fault = None, None
        backend = self._backends[model]
        self._memory.limit(bounds.bytes)
        self._memory.begin()
        try:
            advanced = backend.advance(joining, leaving)
        except Exception as error:  # noqa: BLE001 - as above
            fault = fault_of(error)
        if fault is not None:
            backend.clear()
        return self._ran(began, fault, advanced=advanced)

    def _ran(self, began: float, fault: Fault | None, **what: Any) -> Ran:
        if fault is not None and fault.kind is FaultKind.MEMORY:
            free(error_was_memory=True)
            self._memory.release()
        return Ran(
            fault=fault,
            seconds=self._clock() - began,
            peak=self._memory.peak(),
            own=self._memory.own(),
            fragmented=self._memory.fragmented(),
            **what,
        )

    def hand(
        self,
        model: str,
        payloads: Sequence[Any],
        options: Mapping[str, Any],
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        """Nothing is handed over within one process: its thread takes what is ahead by itself."""

    def sample(self, model: str, length: int) -> Any:
        """Return a payload for measuring."""
        return self._backends[model].sample(length)

    def release(self) -> Own:
        """Give back what nothing holds: a neighbour needs it."""
        self._memory.release()
        return self._memory.own()

    def close(self) -> None:
        """Take all models off the device."""
        for model in list(self._backends):
            self.unload(model)

    def abandon(self) -> None:
        """Nothing can be done about a thread that hangs: it ends with the process."""


def _miscounted(model: str, results: Sequence[Any] | None, payloads: Sequence[Any]) -> Fault:
    got = "nothing" if results is None else f"{len(results)} results"
    return Fault(
        kind=FaultKind.INPUT,
        cause="WrongCount",
        message=f"the backend of model {model!r} returned {got} for {len(payloads)} items",
    )
