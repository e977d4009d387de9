"""The no-op workflow in a worker that counts the calls which the interpreter makes.

Counting begins in the first run and ends in the last, so that starting and leaving are not in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.tally import arrive
from millstream import Context, Workflows

app = Workflows()
_RUNS = int(os.environ.get("COUNTED_RUNS", "0"))
_REPORT = Path(os.environ.get("COUNTED_REPORT", os.devnull))
_calls = {"call": 0, "c_call": 0}
_seen = 0


def _count(frame: Any, event: str, argument: Any) -> None:
    if event in _calls:
        _calls[event] += 1


@app.workflow()
async def noop(ctx: Context) -> None:
    """Do nothing but take part in the count."""
    global _seen  # noqa: PLW0603 - one process, one count
    _seen += 1
    if _seen == 1:
        sys.setprofile(_count)
    if _seen == _RUNS:
        sys.setprofile(None)
        _report()
    tally.done()


def _report() -> None:
    _REPORT.write_text(f"{_calls['call']} {_calls['c_call']}", "utf-8")


tally = arrive()
