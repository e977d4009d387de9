"""An MCP server that fails on purpose, in both eras, over stdio and HTTP.

    python tests/tools/fault_server.py stdio [--era 2025] [--journal FILE]
    python tests/tools/fault_server.py http [--era 2025] [--sse] [--journal FILE] [--port 0]

As HTTP it prints the port it listens on. What its tools do: `fault_tools`.
"""

from __future__ import annotations

import argparse
import sys
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
    options = parser.parse_args()
    tools = FaultTools(journal=options.journal)
    if options.transport == "stdio":
        anyio.run(FaultStdio(Wire(tools, era=options.era)).serve)
    else:
        anyio.run(_serve_http, FaultHttp(tools, era=options.era, sse=options.sse), options.port)


async def _serve_http(server: FaultHttp, port: int) -> None:
    async with server.serve(port):
        print(server.port, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    main()
