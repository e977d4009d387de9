"""What this process takes of its machine: memory now, and its share of a core since lately."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

#: Two readers that ask one after the other see the same share, and not that of a moment.
_LEAST_S = 1.0


def memory_bytes() -> float:
    """Return the resident memory of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        # Elsewhere only the peak is known, in units of the platform's own.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)
    return float(pages * resource.getpagesize())


class CpuShare:
    """The share of one core, in percent, that was used since the reading before. May exceed 100."""

    def __init__(
        self,
        mono: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._mono = mono
        self._used = used
        self._lock = threading.Lock()
        self._at, self._before = mono(), used()
        self._share = 0.0

    def __call__(self) -> float:
        """Return the share; the last one again when that is younger than a second."""
        with self._lock:
            now = self._mono()
            if now - self._at >= _LEAST_S:
                used = self._used()
                self._share = 100.0 * (used - self._before) / (now - self._at)
                self._at, self._before = now, used
            return self._share
