"""The memory of a device as torch sees it: its driver's count, and the account of its allocator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from millstream_worker.inference.budget import Own, Reading


class TorchMonitor:
    """Reads a device through torch: what is left where the driver cannot be asked."""

    def __init__(self, device: str) -> None:
        self._device = device

    def read(self) -> Reading:
        """Return what is usable and used."""
        free, total = _torch().cuda.mem_get_info(self._device)
        return Reading(usable=total, used=total - free)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stats:
    """What the allocator says of itself, in bytes; its ``retries`` are a count."""

    allocated: int = 0
    most_allocated: int = 0
    reserved: int = 0
    most_reserved: int = 0
    retries: int = 0


class TorchMemory:
    """The caching allocator of torch on one device."""

    def __init__(self, device: str) -> None:
        self._torch = _torch()
        self._device = device
        self._before = self._reserved = 0
        self._retries = 0
        self._latest = _Stats()
        self._total = int(self._torch.cuda.get_device_properties(device).total_memory)
        self._limit: float = 1.0
        self._context = self._measured_context()

    def limit(self, size: int | None) -> None:
        """Have the allocator refuse what would take more than ``size`` bytes from the device.

        The runtime's own part is beyond its reach: it counts, and cannot be refused.
        """
        share = 1.0 if size is None else (size - self._context) / self._total
        share = min(1.0, max(0.0, share))
        if share != self._limit:
            self._torch.cuda.set_per_process_memory_fraction(share, self._device)
            self._limit = share

    def begin(self) -> None:
        """A batch starts."""
        self._torch.cuda.reset_peak_memory_stats(self._device)
        stats = self._read()
        self._before, self._reserved = stats.allocated, stats.reserved

    def peak(self) -> int | None:
        """Return the peak bytes since `begin`, above what was held then."""
        stats = self._latest = self._read()
        # What the device lost is more where the allocator takes memory in whole blocks.
        return max(stats.most_allocated - self._before, stats.most_reserved - self._reserved)

    def held(self) -> int:
        """Return the bytes of live tensors."""
        return self._read().allocated

    def own(self) -> Own:
        """Return what was taken from the device, the context of the runtime included."""
        stats = self._read()
        return Own(
            reserved=stats.reserved + self._context,
            cached=max(0, stats.reserved - stats.allocated),
        )

    def fragmented(self) -> bool:
        """Whether the allocator had to flush its cache to find room since this was last asked.

        As of the latest `peak`.
        """
        before, self._retries = self._retries, self._latest.retries
        return self._retries > before

    def _read(self) -> _Stats:
        """Read the account at one moment.

        Torch's own functions for each number write out the whole account, sorted, for every call:
        a fifth of a millisecond that the device stands still, and two of them are two moments.
        """
        stats = self._torch.cuda.memory_stats_as_nested_dict(self._device)
        if not stats:  # nothing was taken yet
            return _Stats()
        allocated, reserved = stats["allocated_bytes"]["all"], stats["reserved_bytes"]["all"]
        return _Stats(
            allocated=int(allocated["current"]),
            most_allocated=int(allocated["peak"]),
            reserved=int(reserved["current"]),
            most_reserved=int(reserved["peak"]),
            retries=int(stats["num_alloc_retries"]),
        )

    def release(self) -> None:
        """Give back what nothing holds."""
        self._torch.cuda.empty_cache()

    def _measured_context(self) -> int:
        """Return what the runtime itself takes: once, before anything else of ours is there.

        Whoever starts beside us at this moment is counted in; a later start is not ours.
        """
        cuda = self._torch.cuda
        before = _free_by_driver(self._torch, self._device)
        x = self._torch.zeros((64, 64), device=self._device)
        (x @ x).sum().item()
        cuda.synchronize(self._device)
        after, _ = cuda.mem_get_info(self._device)
        return 0 if before is None else max(0, before - after - cuda.memory_reserved(self._device))


def _free_by_driver(torch: Any, device: str) -> int | None:
    """Return the free bytes before CUDA was started here; None when that is past or not known."""
    if torch.cuda.is_initialized():
        return None
    try:
        from millstream_worker.inference.monitors import nvml  # noqa: PLC0415 - optional

        library = nvml._library()  # noqa: SLF001 - the same room
        library.nvmlInit()
        uuid = uuid_of(device)
        handle = library.nvmlDeviceGetHandleByUUID(uuid)
        return int(library.nvmlDeviceGetMemoryInfo(handle).free)
    except Exception:  # noqa: BLE001 - only a finer number is lost
        return None


def uuid_of(device: str) -> str:
    """Return the UUID of a CUDA device, as the driver writes it."""
    uuid = str(_torch().cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"


def _torch() -> Any:
    import torch  # noqa: PLC0415 - hundreds of megabytes: only once a device is used

    return torch
