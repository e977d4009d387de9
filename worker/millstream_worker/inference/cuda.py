"""How a CUDA device is run: in a thread of this process while that goes well, else in a child.

A context that died takes its process with it as far as CUDA is concerned: the device is then
served from a child, which gets a new one.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream_worker.inference.backends import Backend
from millstream_worker.inference.budget import Own, Reading
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.engine import Engine, Memory
from millstream_worker.inference.monitors.cuda import TorchMemory, TorchMonitor
from millstream_worker.inference.process import ProcessEngine
from millstream_worker.inference.tenants import RunsModels

_HERE = "cuda:0"


class Cuda:
    """One device. ``in_thread`` needs it to be the only one that this process sees."""

    def __init__(self, uuid: str, *, in_thread: bool, hang_s: float) -> None:
        self._uuid = uuid
        self._hang_s = hang_s
        self._in_thread = in_thread
        self._memory: TorchMemory | None = None
        self._process: ProcessEngine | None = None

    def start(
        self, backend: Callable[[str], Backend], spec: Callable[[str], ModelSpec]
    ) -> RunsModels:
        """Return what runs models there, on a context that is alive."""
        if self._in_thread:
            self._in_thread = False  # what comes after it died here
            return Engine(_HERE, backend, self._make_memory)
        self._memory = None
        self._process = ProcessEngine(spec, self._uuid, hang_s=self._hang_s)
        return self._process

    def live(self) -> Own | None:
        """Return what we hold of the device at this moment."""
        if self._process is not None:
            return self._process.own()
        return None if self._memory is None else self._memory.own()

    def fallback(self) -> Reading:
        """Read the device without its driver's help."""
        return TorchMonitor(_HERE).read()

    def _make_memory(self) -> Memory:
        self._memory = TorchMemory(_HERE)
        return self._memory
