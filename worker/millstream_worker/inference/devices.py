"""Which devices there are for a model, found without loading what drives them."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from millstream.errors import InferenceRejected, MissingExtra
from millstream_worker.inference.backends import Backend
from millstream_worker.inference.catalogue import BUSY, HOST_ONLY
from millstream_worker.inference.declared import Declared, Isolation, ModelSpec
from millstream_worker.inference.engine import Engine, NoMemory
from millstream_worker.inference.monitors import nvml
from millstream_worker.inference.monitors.host import HostMonitor
from millstream_worker.inference.process import ProcessEngine
from millstream_worker.inference.tenants import RunsModels
from millstream_worker.inference.unit import Device

HOST = "cpu"


def devices_for(spec: ModelSpec, declared: Declared) -> Sequence[Device]:
    """Return the devices that may serve a model. May block: called in a thread."""
    if spec.device == HOST or spec.backend in HOST_ONLY:
        return [_host(declared)]
    found = visible()
    if spec.device == "auto":
        return [_gpu(each, found, declared) for each in found] or [_host(declared)]
    if spec.device == "cuda":
        wanted = found
    else:
        wanted = [each for each in found if each.uuid == spec.device]
    if not wanted:
        there = ", ".join(each.uuid for each in found) or "none"
        raise InferenceRejected(
            f"model {spec.name!r} wants device {spec.device!r}, and there are: {there}",
            cause="NoDevice",
        )
    return [_gpu(each, found, declared) for each in wanted]


def visible() -> list[nvml.Found]:
    """Return the devices that this process may use, by the driver's account."""
    try:
        found = nvml.devices()
    except (nvml.NoDriver, MissingExtra):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return found
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    by_uuid = {each.uuid: each for each in found}
    # A number counts as the driver does: CUDA's own order differs where the devices do.
    by_number = {str(number): each for number, each in enumerate(found)}
    return [each for name in names if (each := by_uuid.get(name) or by_number.get(name))]


def _host(declared: Declared) -> Device:
    host = _Host(declared)
    return Device(
        name=HOST,
        # Workers elsewhere plan with memory of their own: they are no neighbours.
        uuid=f"{HOST}:{socket.gethostname()}",
        monitor=HostMonitor(children=host.children),
        start=host.start,
        fraction=declared.host_memory_fraction,
        hang_s=declared.hang_timeout_s,
        kept_as=_processor(),
    )


class _Host:
    """How models of the host are run: all of them from one place."""

    def __init__(self, declared: Declared) -> None:
        self._hang_s = declared.hang_timeout_s
        self._apart = declared.isolation is Isolation.PROCESS or (
            declared.isolation is Isolation.AUTO and _busy(declared)
        )
        self._process: ProcessEngine | None = None

    def start(
        self, backend: Callable[[str], Backend], spec: Callable[[str], ModelSpec]
    ) -> RunsModels:
        """Return what runs them."""
        if not self._apart:
            return Engine(HOST, backend, NoMemory)
        self._process = ProcessEngine(spec, hang_s=self._hang_s)
        return self._process

    def children(self) -> list[int]:
        """Return the processes that hold them beside this one."""
        return [] if self._process is None else [self._process.pid]


def _busy(declared: Declared) -> bool:
    """Whether a declared model that keeps an interpreter busy is computed on the host."""
    free = not visible()
    return any(
        spec.backend in BUSY and (spec.device == HOST or (free and spec.device == "auto"))
        for spec in declared.models.values()
    )


def _processor() -> str:
    """Return what hosts have in common that compute as fast as this one."""
    name = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"}:
            name = value.strip()
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{HOST}:{name or platform.machine()}:{cores}"


def _gpu(each: nvml.Found, found: Sequence[nvml.Found], declared: Declared) -> Device:
    from millstream_worker.inference.cuda import Cuda  # noqa: PLC0415 - only where there is one

    # In a process of its own unless it is asked for: the Python of a model's layers and this loop
    # would wait for one interpreter lock, and a thread that hangs cannot be ended.
    in_thread = declared.isolation is Isolation.THREAD and len(found) == 1
    hang_s = declared.hang_timeout_s
    cuda = Cuda(each.uuid, in_thread=in_thread, hang_s=hang_s)
    number = next(i for i, other in enumerate(found) if other.uuid == each.uuid)
    return Device(
        name=f"cuda:{number}",
        uuid=each.uuid,
        monitor=nvml.NvmlMonitor(each.uuid, fallback=cuda.fallback),
        start=cuda.start,
        fraction=declared.gpu_memory_fraction,
        share=declared.gpu_memory_share,
        live=cuda.live,
        hang_s=hang_s,
        kept_as=each.uuid,
    )
