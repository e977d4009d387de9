"""Tell what a run says, from any event on, and then how it ended.

Promise: whoever names the last event that it has seen misses nothing that is kept, and is told
where something is not kept any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from millstream.client.handles import Run, RunEvent
from millstream.model.progress import EventKind
from millstream.store.sayings import Heard, Said

if TYPE_CHECKING:
    from millstream.client.asynchronous import Client

#: What an iteration that goes on after nothing stands behind.
_BEGINNING = "0-0"


async def tell(client: Client, run: Run, after: str) -> AsyncIterator[RunEvent]:
    """Iterate over what a run says. Raises `UnknownRun`, also when its record expires meanwhile."""
    #: How much the run had said up to here; None: not known.
    seen: int | None = None if after else 0
    while True:
        async with client.turns:
            # The state is read first: what was said before the end is then still seen.
            found = await client.status(run)
            heard = await client.heard(run, after)
        for event in events_of(heard, after, seen):
            after = event.id
            yield event
        if heard.before is not None:
            seen = heard.before
        if seen is not None:
            seen += len(heard.said)
        if heard.said:
            continue
        if found.state.final:
            ended = found.times.ended or 0.0
            yield RunEvent(
                after, str(found.state), found.error, ended, final=True, kind=EventKind.END
            )
            return
        await client.until_said(run, after)


def events_of(heard: Heard, after: str, seen: int | None) -> Sequence[RunEvent]:
    """Return what was heard as events; first of all what is missing before it, if anything is."""
    events = [_event(each) for each in heard.said]
    lost = _lost(heard, seen)
    if not events or lost == 0:
        return events

    # It has no id of its own: an iteration goes on behind what was seen before it.
    data, at = {"events": lost}, events[0].at
    gap = RunEvent(after or _BEGINNING, "left_out", data, at, kind=EventKind.LEFT_OUT)
    return [gap, *events]


def _lost(heard: Heard, seen: int | None) -> int | None:
    """Return how many events stood before those that were heard; None: some, perhaps many."""
    if heard.before is not None and seen is not None:
        return max(0, heard.before - seen)
    return None if heard.cut else 0


def _event(said: Said) -> RunEvent:
    return RunEvent(said.id, said.name, said.data, said.at, kind=said.kind)
