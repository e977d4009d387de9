"""Tell what a run says, from any event on, and then how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from millstream.client.handles import Run, RunEvent

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client


async def tell(client: Client, run: Run, after: str) -> AsyncIterator[RunEvent]:
    """Iterate over what a run says. Raises `UnknownRun`, also when its record expires meanwhile."""
    while True:
        # The state is read first: what was said before the end is then still seen.
        found = await client.status(run)
        said = await client.said(run, after)
        for event in said:
            after = event.id
            yield event
        if said:
            continue
        if found.state.final:
            ended = found.times.ended or 0.0
            yield RunEvent(after, str(found.state), found.error, ended, final=True)
            return
        await client.until_said(run, after)
