"""Go through the runs of a lane a page at a time, from where the page before ended.

Runs are found where they stand anyway: streams, backlogs, timers, what has ended. A run that moves
from one to another meanwhile may be met twice, or not at all; one that stays is met once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from millstream.errors import UsageError
from millstream.model.run import RunState, RunStatus
from millstream.model.selection import Selection
from millstream.store import runs
from millstream.store.connection import Connection
from millstream.store.keys import FRESH, LEVELS, Lane

#: Runs that are looked at in one call.
PAGE = 200
_CURSOR = re.compile(r"(\d{1,3})/(\d{1,2})/([0-9-]{1,40})?")


class Place(NamedTuple):
    """Where in a queue one has got to: a lane, one of its structures, a position in that."""

    lane: int = 0
    source: int = 0
    position: str = ""

    def __str__(self) -> str:
        return f"{self.lane}/{self.source}/{self.position}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place that a text names. Raises `UsageError`."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is no cursor of a listing; give one that was printed")
        return cls(int(found[1]), int(found[2]), found[3] or "")


class Page(NamedTuple):
    """Runs that match, and where the next page begins; None: this was the last."""

    runs: Sequence[RunStatus]
    next: Place | None


async def page(connection: Connection, lane: Lane, wanted: Selection, at: Place) -> Page:
    """Look at up to `PAGE` runs of a lane. Raises `StoreError`."""
    sources = _sources(lane, wanted.states)
    if at.source >= len(sources):
        return Page((), None)
    key, ranked = sources[at.source]
    ids, position = await (_ranked if ranked else _entries)(connection, key, at.position)
    found = await runs.statuses(connection, lane, ids)
    following = Place(lane.number, at.source, position)
    if not position:
        more = at.source + 1 < len(sources)
        return Page(_kept(found, wanted), Place(lane.number, at.source + 1) if more else None)
    return Page(_kept(found, wanted), following)


def _kept(found: dict[str, RunStatus], wanted: Selection) -> Sequence[RunStatus]:
    return [status for status in found.values() if wanted.matches(status)]


def _sources(lane: Lane, states: frozenset[RunState]) -> list[tuple[str, bool]]:
    """Return where such runs may stand, and whether that is a sorted set; else it is a stream."""
    sources: list[tuple[str, bool]] = []
    # What is held stands in its stream, too, until it ends.
    if states & {RunState.RUNNING, RunState.QUEUED}:
        sources += [(lane.stream(level), False) for level in LEVELS]
    if RunState.QUEUED in states:
        sources += [(lane.backlog(level), True) for level in FRESH]
        sources.append((lane.limited, True))
    if RunState.SCHEDULED in states:
        sources.append((lane.timers, True))
    if RunState.PARKED in states:
        sources.append((lane.parked, True))
    if any(state.final for state in states):
        sources.append((lane.ended, True))
    return sources


async def _ranked(connection: Connection, key: str, position: str) -> tuple[list[str], str]:
    start = int(position or 0)
    with connection.translated():
        found = await connection.client.zrevrange(key, start, start + PAGE - 1)
    return [run_id.decode() for run_id in found], str(start + PAGE) if len(found) == PAGE else ""


async def _entries(connection: Connection, stream: str, position: str) -> tuple[list[str], str]:
    last = f"({position}" if position else "+"
    with connection.translated():
        found: Any = await connection.client.xrevrange(stream, last, "-", count=PAGE)
    ids = [fields[b"id"].decode() for _, fields in found]
    return ids, found[-1][0].decode() if len(found) == PAGE else ""
