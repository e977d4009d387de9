"""The memory of this machine, as far as this process may have it.

A container's limit counts where there is one, under either version of control groups; what the
kernel keeps of files can be had back and counts as free. The kernel kills where a device would
refuse, so what this process may still have is the whole that a fraction is taken of: what others
hold is not divided a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from millstream_worker.inference.budget import Reading

_UNLIMITED = 1 << 60


class HostMonitor:
    """Reads ``/proc`` and ``/sys/fs/cgroup``; ``root`` is where these are found.

    ``children`` are the processes that hold models for this one.
    """

    def __init__(
        self, root: Path = Path("/"), children: Callable[[], Iterable[int]] = tuple
    ) -> None:
        self._children = children
        self._proc = root / "proc"
        self._groups = root / "sys/fs/cgroup"

    def read(self) -> Reading:
        """Return what this process holds, and with that what it may still have."""
        ours = sum(map(self._resident, ("self", *map(str, self._children()))))
        return Reading(usable=self._available() + ours, used=ours)

    def _available(self) -> int:
        lines = (self._proc / "meminfo").read_text("ascii").splitlines()
        facts = {name: value for name, _, value in (line.partition(":") for line in lines)}
        machine = int(facts["MemAvailable"].split()[0]) * 1024
        return max(0, min(machine, self._group_left()))

    def _resident(self, process: str) -> int:
        for line in _read(self._proc / process / "status").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def _group_left(self) -> int:
        """Return what the control groups of this process leave, the tightest of them all."""
        left = _UNLIMITED
        for line in _read(self._proc / "self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                base, names = self._groups, _V2
            elif "memory" in controllers.split(","):
                base, names = self._groups / "memory", _V1
            else:
                continue
            # A limit of any group above holds too. Inside a container the path may lead nowhere.
            place = base / path.lstrip("/")
            for group in (place, *place.parents):
                left = min(left, _left_in(group, *names))
                if group == base:
                    break
        return left


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left_in(group: Path, limit_name: str, used_name: str, cache_name: str) -> int:
    limit, used = _read(group / limit_name).strip(), _read(group / used_name).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) >= _UNLIMITED:
        return _UNLIMITED  # "max", or no such group
    cache = 0
    for line in _read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == cache_name:
            cache = int(value)
    return int(limit) - int(used) + cache


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
