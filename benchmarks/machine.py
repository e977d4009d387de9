"""Where it ran: what stands beside every figure, since figures of two machines do not compare."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.environments import ROOT, versions

_OURS = ("redis", "hiredis", "uvloop", "anyio", "msgspec", "aiohttp", "mcp")


def facts(systems: list[str]) -> dict[str, object]:
    """Return the machine, the interpreter, the servers and every version that matters."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "redis": _said("redis-server", "--version", pattern=r"v=(\S+)"),
        "load": [round(each, 2) for each in os.getloadavg()],
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "ours": _installed(_OURS),
        "peers": {name: found for name in systems if (found := versions(name))},
    }


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text("utf-8") if file.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor()


def _said(*command: str, pattern: str = r"(\S+)") -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    found = re.search(pattern, done.stdout)
    return found[1] if found else ""


def _installed(names: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
