"""The memory of an NVIDIA device, read from its driver.

A device is found by its UUID, never by a number: CUDA and the driver count differently. A MIG
instance has a UUID and memory of its own. Where the driver has only the older call, what it keeps
for itself counts as used; where it has none, another monitor is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from millstream.errors import MissingExtra
from millstream_worker.inference.budget import Reading


class NoDriver(Exception):
    """There is no driver, or it does not answer for this device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A device that the driver knows."""

    uuid: str
    name: str
    #: Bytes in all.
    total: int
    mig: bool = False


class NvmlMonitor:
    """Reads one device. ``fallback`` is asked where the driver does not answer."""

    def __init__(
        self, uuid: str, *, fallback: Callable[[], Reading] | None = None, nvml: Any = None
    ) -> None:
        self._nvml = nvml if nvml is not None else _library()
        self._uuid = uuid
        self._fallback = fallback
        self._handle: Any = None
        #: The newer call is not tried again once it was refused.
        self._older = False

    def read(self) -> Reading:
        """Return what is usable and used. Raises `NoDriver` when nobody answers."""
        try:
            return self._read()
        except self._nvml.NVMLError as error:
            self._handle = None
            if self._fallback is not None:
                return self._fallback()
            raise NoDriver(f"the driver does not answer for {self._uuid}: {error}") from error

    def _read(self) -> Reading:
        if self._handle is None:
            self._nvml.nvmlInit()
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self._uuid)
        if not self._older:
            try:
                info = self._nvml.nvmlDeviceGetMemoryInfo(
                    self._handle, version=self._nvml.nvmlMemory_v2
                )
                return Reading(usable=info.total - info.reserved, used=info.used)
            except (self._nvml.NVMLError, AttributeError, TypeError) as error:
                if not _not_there(error):
                    raise
                self._older = True
        info = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return Reading(usable=info.total, used=info.used)


def devices(nvml: Any = None) -> list[Found]:
    """Return the devices of this machine, MIG instances in place of what they divide.

    Raises `NoDriver` where there is no driver.
    """
    nvml = nvml if nvml is not None else _library()
    try:
        nvml.nvmlInit()
        return [
            found
            for index in range(nvml.nvmlDeviceGetCount())
            for found in _parts(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
        ]
    except nvml.NVMLError as error:
        raise NoDriver(f"there is no NVIDIA driver here: {error}") from error


def _parts(nvml: Any, handle: Any) -> Iterator[Found]:
    instances = list(_instances(nvml, handle))
    for each in instances or [handle]:
        yield Found(
            uuid=_text(nvml.nvmlDeviceGetUUID(each)),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            total=nvml.nvmlDeviceGetMemoryInfo(each).total,
            mig=bool(instances),
        )


def _instances(nvml: Any, handle: Any) -> Iterator[Any]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
    except nvml.NVMLError:
        return  # a device that cannot be divided
    for index in range(most):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # the place is empty


def _not_there(error: Exception) -> bool:
    """Whether a call is missing, rather than failing: an old driver or library, or WSL."""
    return isinstance(error, AttributeError | TypeError) or type(error).__name__ in {
        "NVMLError_NotSupported",
        "NVMLError_FunctionNotFound",
        "NVMLError_InvalidArgument",
        "NVMLError_ArgumentVersionMismatch",
        "NVMLError_Unknown",
    }


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _library() -> Any:
    try:
        import pynvml  # noqa: PLC0415 - optional, and imported when a device is looked for
    except ImportError as error:
        raise MissingExtra("gpu", "pynvml") from error
    return pynvml
