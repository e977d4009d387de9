"""The workflows that are measured."""

from __future__ import annotations

import anyio

from millstream import Context, Workflows

app = Workflows()


@app.workflow()
async def noop(ctx: Context) -> None:
    """Do nothing: what is left is the cost of a run."""


async def _return(number: int) -> int:
    return number


@app.workflow()
async def five_steps(ctx: Context) -> int:
    """Record five steps, one after the other."""
    total = 0
    for number in range(5):
        total += await ctx.step(_return, number)
    return total


@app.workflow()
async def waits(ctx: Context) -> None:
    """Wait as for I/O, without a step."""
    await anyio.sleep(0.05)
