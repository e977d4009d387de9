"""Has the C library keep what a batch on the host gives back, for the next batch.

By itself it returns large pieces to the kernel at once, and every batch pays for having them
mapped and cleared again: thousands of page faults, up to a fifth of the time of a small model.

Promise: no more than `KEPT` bytes stay with an arena that nothing holds. It is a hint: where the C
library is another one, nothing happens.
"""

from __future__ import annotations

import ctypes

MIB = 1024 * 1024
#: What may lie idle at the end of an arena, and what is taken from the kernel apart from it.
KEPT, _LARGE = 128 * MIB, 32 * MIB
#: The names of the GNU library: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
_TRIM, _MAP = -1, -3


def keep_memory() -> None:
    """Say so to the C library, for this process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM, KEPT)
        mallopt(_MAP, _LARGE)
