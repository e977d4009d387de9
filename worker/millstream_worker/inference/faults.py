"""What kind of failure is this? The answer decides between splitting, isolating and starting anew.

By class names and texts: no device library is imported for it.
"""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from enum import StrEnum

from millstream.errors import said


class FaultKind(StrEnum):
    """What a failure calls for."""

    MEMORY = "memory"  # split the batch and try again
    DEVICE = "device"  # the device's context is dead: start the process anew
    INPUT = "input"  # find the item that did it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure as words, so that it holds on to nothing and can leave a process."""

    kind: FaultKind
    cause: str
    message: str


_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_not_supported",
)
_DEVICE = (
    "device-side assert",
    "an illegal memory access",
    "illegal instruction was encountered",
    "unspecified launch failure",
    "misaligned address",
    "gpu is lost",
    "gpuislost",
    "fallen off the bus",
    "cuda error: unknown error",
    "uncorrectable ecc error",
    "mps client",
)


def fault_of(error: BaseException) -> Fault:
    """Return what a failure is. Frees what its frames hold: tensors above all."""
    cause, message = type(error).__name__, said(error)
    traceback.clear_frames(error.__traceback__)
    return Fault(kind=_kind(error, cause, message), cause=cause, message=message[:2000])


def free(error_was_memory: bool) -> None:
    """Collect what the failure left in circles. Call it when the ``except`` block was left."""
    if error_was_memory:
        gc.collect()


def _kind(error: BaseException, cause: str, message: str) -> FaultKind:
    text = message.lower()
    if any(mark in text for mark in _DEVICE) or cause == "NVMLError_GpuIsLost":
        return FaultKind.DEVICE
    if isinstance(error, MemoryError) or cause == "OutOfMemoryError":
        return FaultKind.MEMORY
    return FaultKind.MEMORY if any(mark in text for mark in _MEMORY) else FaultKind.INPUT
