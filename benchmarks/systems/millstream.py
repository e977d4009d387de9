"""millstream itself: ``millstream worker``, and the asynchronous client."""

from __future__ import annotations

import os
from typing import Any

import anyio

from benchmarks.systems import HOLD_S, IO_S, STEPS, URL, Adapter
from benchmarks.tally import arrive
from millstream import Client, Context, Enqueue, Run, Workflows

app = Workflows()
#: Calls that one run makes of the null tool, one after the other.
CALLS = int(os.environ.get("BENCH_CALLS", "20"))
#: So many tenants have their runs enqueued in turn; one is as good as none.
TENANTS = int(os.environ.get("BENCH_TENANTS", "1"))


@app.workflow()
async def noop(ctx: Context) -> None:
    """Do nothing: what is left is the cost of a run."""
    tally.done()


@app.workflow()
async def io(ctx: Context) -> None:
    """Wait as for I/O, without a step."""
    tally.begun(0)
    await anyio.sleep(IO_S)
    tally.done()


async def _number(number: int) -> int:
    return number


@app.workflow()
async def chain(ctx: Context) -> int:
    """Record five steps, one after the other."""
    total = 0
    for number in range(STEPS):
        total += await ctx.step(_number, number)
        tally.done()
    return total


@app.workflow()
async def hold(ctx: Context, number: int) -> None:
    """Wait until the worker is killed."""
    tally.begun(number)
    await anyio.sleep(HOLD_S)


@app.workflow()
async def calls(ctx: Context) -> None:
    """Call the null tool of an MCP server."""
    for _ in range(CALLS):
        await ctx.tool("null", "null")
        tally.done()


class Millstream(Adapter):
    """The asynchronous client."""

    async def open(self) -> None:
        """Connect."""
        self._client = Client(URL, patience=30)
        await self._client.__aenter__()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.__aexit__(None, None, None)

    async def enqueue(self, job: str) -> Run:
        """Enqueue one run."""
        return await self._client.enqueue(job)

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue runs, a few hundred in one round trip."""
        runs = [Enqueue(job, _arguments(job, n), tenant=_tenant(n)) for n in range(count)]
        await self._client.enqueue_many(runs)

    async def result(self, handle: Any) -> None:
        """Wait for the result of a run."""
        await handle.result(30)


def _arguments(job: str, number: int) -> dict[str, int] | None:
    return {"number": number} if job == "hold" else None


def _tenant(number: int) -> str | None:
    return f"tenant-{number % TENANTS}" if TENANTS > 1 else None


ADAPTER = Millstream
tally = arrive()
