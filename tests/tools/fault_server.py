"""An MCP server that fails on purpose, in both eras, over stdio and HTTP.

    python tests/tools/fault_server.py stdio [--era 2025] [--journal FILE]
    python tests/tools/fault_server.py http [--era 2025] [--sse] [--journal FILE] [--port 0]

As HTTP it prints the port it listens on. What its tools do: `fault_tools`.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.tools.fault_http import FaultHttp
from tests.tools.fault_stdio import FaultStdio
from tests.tools.fault_tools import FaultTools
from tests.tools.fault_wire import Wire


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["stdio", "http"])
    parser.add_argument("--era", choices=["2025", "2026"], default="2026")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--sse", action="store_true")
    parser.add_argument("--stubborn", action="store_true", help="outlive whoever started us")
    options = parser.parse_args()
    if options.stubborn:
        _outlive(options.journal)
    tools = FaultTools(journal=options.journal)
    if options.transport == "stdio":
        anyio.run(FaultStdio(Wire(tools, era=options.era)).serve)
    else:
        anyio.run(_serve_http, FaultHttp(tools, era=options.era, sse=options.sse), options.port)


def _outlive(journal: Path) -> None:
    """Ignore every polite request to end, and start a child that leaves our process group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    journal.write_text(json.dumps({"event": "pids", "pids": [os.getpid(), child.pid]}) + "\n")
    atexit.register(time.sleep, 3600)


async def _serve_http(server: FaultHttp, port: int) -> None:
    async with server.serve(port):
        print(server.port, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    main()
