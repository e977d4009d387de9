"""Workflows in a worker that counts the calls which the interpreter makes.

Counting begins in the first unit of a workflow (a run, a step, a call of a tool) and ends in the
last, so that starting and leaving are not in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.tally import arrive
from millstream import Context, Workflows

app = Workflows()
#: How many units are counted, and where the report is written: a line for each workflow.
_UNITS = int(os.environ.get("COUNTED_UNITS", "0"))
_REPORT = Path(os.environ.get("COUNTED_REPORT", os.devnull))
#: Steps, or calls, that one run makes one after the other.
EACH = 20
_calls = {"call": 0, "c_call": 0}
_seen: dict[str, int] = {}


def _count(frame: Any, event: str, argument: Any) -> None:
    if event in _calls:
        _calls[event] += 1


def _unit(workflow: str) -> None:
    seen = _seen[workflow] = _seen.get(workflow, 0) + 1
    if seen == 1:
        _calls.update(call=0, c_call=0)
        sys.setprofile(_count)
    if seen == _UNITS:
        sys.setprofile(None)
        with _REPORT.open("a", encoding="utf-8") as report:
            report.write(f"{workflow} {_calls['call']} {_calls['c_call']}\n")
    tally.done()


@app.workflow()
async def noop(ctx: Context) -> None:
    """Do nothing but take part in the count."""
    _unit("noop")


async def _number(number: int) -> int:
    return number


@app.workflow()
async def chain(ctx: Context) -> None:
    """Record steps, one after the other."""
    for number in range(EACH):
        await ctx.step(_number, number)
        _unit("chain")


@app.workflow()
async def calls(ctx: Context) -> None:
    """Call the null tool of an MCP server, one call after the other."""
    for _ in range(EACH):
        await ctx.tool("null", "null")
        _unit("calls")


tally = arrive()
