"""The main program of a worker process that a test started: ``python -m tests.processes.child``."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the test that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


def main() -> None:
    """Serve the flows with the settings that stand in the first argument."""
    settings = json.loads(sys.argv[1])
    die_with_parent(settings.pop("parent"))

    from millstream_worker.__main__ import run
    from millstream_worker.config import WorkerConfig

    for name in {"models", "mcp"} & settings.keys():
        settings[name] = Path(settings[name])
    run(WorkerConfig(**settings), "tests.processes.flows:app", Path.cwd())


if __name__ == "__main__":
    main()
