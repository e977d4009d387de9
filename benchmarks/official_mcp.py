"""The official MCP client: ``python -m benchmarks.official_mcp URL CALLERS EACH``."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from mcp import Client


async def call(url: str, callers: int, each: int) -> dict[str, float]:
    """Let callers share one client and call one after the other; return what it took."""
    async with Client(url) as client:

        async def caller(calls: int) -> None:
            for _ in range(calls):
                await client.call_tool("null", {})

        await caller(5)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(each) for _ in range(callers)))
        return {
            "count": callers * each,
            "seconds": time.perf_counter() - began,
            "cpu_s": time.process_time() - cpu,
        }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(call(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
