"""Ask an MCP server what it offers, and remember it: a replay sees what the run saw.

A listing has no effect, so no intent is needed and it is simply asked for again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import anyio

from millstream.errors import ToolError
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus
from millstream.model.tool import ToolInfo
from millstream_worker.pins import Pins
from millstream_worker.steps import Recorder, Step, replayed

_RETRY = RetryPolicy(max_attempts=5, initial=0.5, maximum=10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A question for the tools of a server, as a workflow asked it."""

    server: str
    #: Whose stateful sessions it may use.
    session: str


async def list_tools(
    recorder: Recorder, step: Step, asked: Listing, record: Record | None, pins: Pins
) -> list[ToolInfo]:
    """Return what a server offers, from the journal or from the server."""
    if record is not None:
        return [ToolInfo(**each) for each in replayed(step, await recorder.whole(record), list)]

    tools = recorder.environment.tools
    began, attempt = recorder.wall(), 0
    while True:
        attempt += 1
        await recorder.ready()
        try:
            offered, catalogue = await tools.offered(asked.server, run_id=asked.session)
        except ToolError as error:
            pause_s = _RETRY.pause(attempt, recorder.environment.random)
            if pause_s is None or not error.retryable:
                await recorder.fail(step, error, attempt, began)
            recorder.retried(step, attempt, pause_s, error)
            await anyio.sleep(max(pause_s, error.retry_after or 0.0))
        else:
            pins.check(asked.server, catalogue)
            value = [asdict(each) for each in offered]
            took_s = max(0.0, recorder.wall() - began)
            answered = recorder.record(
                step, RecordStatus.OK, value, attempts=attempt, began=began, took_s=took_s
            )
            await recorder.write(step, answered)
            return list(offered)
