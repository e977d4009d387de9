"""What a request for a run costs the gateway, counted and not timed.

A thousand single runs come from a hundred callers over connections that are kept. What is bounded
are calls of the interpreter: they hardly depend on the machine, but for how many runs leave for the
store together, so the bounds have some air.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gateway import CALLERS, Caller, admin_key
from tests.benchmarks.counted_gateway import FIRST
from tests.servers import RedisServer

# A process of its own that loads a whole gateway, for one figure.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cost")]

REQUESTS = 1000
#: A busy machine sends fewer runs together, each way a little dearer.
PYTHON, BUILTIN = 167.0, 130.0


async def _asked(url: str, port: int) -> None:
    key = await admin_key(url)

    async def call(caller: Caller) -> None:
        await caller.open()
        for _ in range((FIRST + REQUESTS) // CALLERS):
            reply = await caller.post("/api/v1/runs", b'{"workflow": "noop"}')
            assert reply.status == 201
        caller.close()

    await asyncio.gather(*(call(Caller(port, key)) for _ in range(CALLERS)))


def test_a_request_costs_no_more_than_it_did(redis_server: RedisServer) -> None:
    """When it becomes dearer for a reason, the bound is raised with the reason."""
    module = "tests.benchmarks.counted_gateway"
    command = [sys.executable, "-m", module, redis_server.url, str(REQUESTS)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            asyncio.run(_asked(redis_server.url, int(child.stdout.readline())))
            python, builtin = (int(each) / REQUESTS for each in child.stdout.readline().split())
        finally:
            child.kill()

    print(f"\na request: {python:.1f} calls of Python, {builtin:.1f} of builtins")
    # A bound holds nothing when what is counted is missing.
    assert 50 < python <= PYTHON
    assert 50 < builtin <= BUILTIN
