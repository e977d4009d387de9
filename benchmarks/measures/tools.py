"""MCP tool calls a second: a null tool behind a streamable HTTP server in a process of its own.

Ours go through a worker and are journaled; beside them the official client calls the same server
from a bare loop and records nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.catalogue import System
from benchmarks.measures import Figure, Measure, Sizes, only
from benchmarks.processes import Child

_MICRO = 1e6
_CALLS = 20
_CALLERS = 100
_MODULE = "benchmarks.null_mcp"


def _take(sizes: Sizes, system: System) -> Iterator[Figure]:
    with Bench(system, environment={"BENCH_CALLS": str(_CALLS)}) as bench:
        server, url = null_server(bench)
        flags = ["--mcp", str(server_file(bench.directory, url))]
        if system.only_calls:
            yield from _official(sizes, bench, url)
            return
        count = sizes.tool_runs * _CALLS
        bench.load(flags=flags)
        bench.fill("calls", sizes.tool_runs)
        bench.begin()
        begun = bench.all_at_work()
        before = server.cpu_s()
        ended = bench.until_done(count, 2 * sizes.window_s)
        calls = max(1, ended.done - begun.done)
        yield Figure("calls", calls / (ended.at - begun.at), "calls/s", "higher")
        cpu = ended.workers_cpu_s - begun.workers_cpu_s
        yield Figure("client cpu", _MICRO * cpu / calls, "us/call", "lower")
        yield Figure(
            "tool server cpu", _MICRO * (server.cpu_s() - before) / calls, "us/call", "lower"
        )


def _official(sizes: Sizes, bench: Bench, url: str) -> Iterator[Figure]:
    """The official client, from a bare loop."""
    command = [
        *(sys.executable, "-m", "benchmarks.official_mcp", url),
        *(str(_CALLERS), str(max(1, sizes.tool_runs * _CALLS // _CALLERS // 2))),
    ]
    with bench.run(command, "official", role="caller", speaks=True) as client:
        took = client.hear()
    yield Figure("calls", took["count"] / took["seconds"], "calls/s", "higher")
    yield Figure("client cpu", _MICRO * took["cpu_s"] / took["count"], "us/call", "lower")


def null_server(bench: Bench) -> tuple[Child, str]:
    """Start the server; return it and its address."""
    command = [sys.executable, "-m", _MODULE]
    child = bench.run(command, "null-mcp", role="server", speaks=True)
    return child, f"http://127.0.0.1:{child.hear()['port']}/mcp"


def server_file(directory: Path, url: str) -> Path:
    """Write the servers' file of a worker."""
    options = {"allowPrivate": True, "tools": {"null": {"effect": "read-only"}}}
    entry = {"type": "http", "url": url, "millstream": options}
    file = directory / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"null": entry}}), "utf-8")
    return file


MEASURES = [
    Measure(
        "tools",
        "MCP calls of a null tool, a hundred at a time, and those of the official client",
        _take,
        usually=only("millstream", "mcp-client"),
        possible=only("millstream", "mcp-client"),
    )
]
