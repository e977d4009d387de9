"""Go through the runs of a lane page by page, each from where the last one ended.

A place is one of the structures in which runs stand anyway. A position names the last member that
was looked at, never a number of members to skip: what comes or goes meanwhile shifts nothing. A
run that moves between two pages may be met twice or not at all; one that stays is met once.

Promise: a page costs a bounded number of look-ups, however few runs match. It then ends early, and
says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from millstream.errors import StoreError
from millstream.model.run import FINAL, RunState, RunStatus
from millstream.store import runs
from millstream.store.connection import Connection
from millstream.store.keys import FRESH, GROUP, LEVELS, Lane

#: Runs that are looked at for one page, whether they match or not.
MOST_LOOKED_AT = 2_000
_STEP = 200
#: What the name of a place ends in where runs wait for their turn to come into a stream.
_BACKLOG = ":backlog"
#: Where queued runs wait for a permit of their limits.
_LIMITED = "queued:limited"
#: The dead letters of a lane: an index of their own, beside the states.
DEAD = "dead"


class Position(NamedTuple):
    """Where a page ended: in which place, and behind which member of it."""

    place: str
    member: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """Runs in the order of their places, and where to go on; None: there is nothing more."""

    runs: tuple[RunStatus, ...]
    next: Position | None


def states_places(states: frozenset[RunState], *, limited: bool = False) -> tuple[str, ...]:
    """Return the places where runs in these states stand, in the order they are gone through.

    ``limited``: only where runs wait for a permit.
    """
    if limited:
        return (_LIMITED,) if RunState.QUEUED in states else ()
    found = [f"running:{level}" for level in LEVELS] if RunState.RUNNING in states else []
    if RunState.QUEUED in states:
        found += [f"queued:{level}" for level in LEVELS]
        found += [f"queued:{level}{_BACKLOG}" for level in FRESH]
        found.append(_LIMITED)
    found += [state for state in (RunState.SCHEDULED, RunState.PARKED) if state in states]
    return (*found, *(("ended",) if states & FINAL else ()))


def is_stream(place: str) -> bool:
    """Whether the members of a place are entries of a stream; elsewhere they are ids of runs."""
    return ":" in place and place != _LIMITED and not place.endswith(_BACKLOG)


async def page_of(  # noqa: PLR0917 - where, from where on, and what is wanted
    connection: Connection,
    lane: Lane,
    places: Sequence[str],
    after: Position | None,
    limit: int,
    matches: Callable[[RunStatus], bool],
) -> Page:
    """Return the next runs that match, at most ``limit``. Raises `StoreError`."""
    found: list[RunStatus] = []
    looked_at = 0
    at = after or Position(places[0])
    rest = places[places.index(at.place) :] if at.place in places else ()
    for place in rest:
        at = at if at.place == place else Position(place)
        while True:
            members = await _members(connection, lane, at)
            if not members:
                break
            looked_at += len(members)
            ids = [run_id for _, run_id in members if run_id]
            known = await runs.statuses(connection, lane, ids)
            for position, run_id in members:
                at = position
                status = known.get(run_id)
                if status is not None and _stands(status, place) and matches(status):
                    found.append(status)
                    if len(found) == limit:
                        return Page(tuple(found), at)
            if looked_at >= MOST_LOOKED_AT:
                return Page(tuple(found), at)

    return Page(tuple(found), None)


def _stands(status: RunStatus, place: str) -> bool:
    """Whether a run is in the state that a place is gone through for."""
    if place == DEAD:
        return status.state is RunState.FAILED
    if place == "ended":
        return status.state.final
    return status.state == place.partition(":")[0]


_Members = list[tuple[Position, str]]


async def _members(connection: Connection, lane: Lane, at: Position) -> _Members:
    kind, _, level = at.place.partition(":")
    if kind == "running":
        return await _pending(connection, lane.stream(level), at)
    if at.place == _LIMITED:
        return await _ranked(connection, lane.limited, at)
    if kind == "queued" and level.endswith(_BACKLOG):
        return await _ranked(connection, lane.backlog(level.removesuffix(_BACKLOG)), at)
    if kind == "queued":
        return await _entries(connection, lane.stream(level), at)
    keys: Mapping[str, str] = {
        "scheduled": lane.timers, "parked": lane.parked, "ended": lane.ended, DEAD: lane.dead
    }  # fmt: skip
    return await _ranked(connection, keys[kind], at)


async def _ranked(connection: Connection, key: str, at: Position) -> _Members:
    """Return members of a sorted set behind a position, the highest first."""
    top: str | float = at.score if at.member else "+inf"
    skipped = 0
    while True:
        with connection.translated():
            rows = await connection.client.zrevrangebyscore(
                key, top, "-inf", start=skipped, num=_STEP, withscores=True
            )
        members = [
            (Position(at.place, run_id.decode(), score), run_id.decode()) for run_id, score in rows
        ]
        behind = [each for each in members if not at.member or _is_behind(each[0], at)]
        if behind or len(rows) < _STEP:
            return behind
        skipped += _STEP


def _is_behind(position: Position, at: Position) -> bool:
    """Whether a member comes after a position: of the same score the greater one comes first."""
    return (position.score, position.member) < (at.score, at.member)


async def _entries(connection: Connection, stream: str, at: Position) -> _Members:
    with connection.translated():
        rows = await connection.client.xrevrange(
            stream, f"({at.member}" if at.member else "+", "-", count=_STEP
        )
    return [(Position(at.place, entry.decode()), _id(fields)) for entry, fields in rows]


async def _pending(connection: Connection, stream: str, at: Position) -> _Members:
    start = f"({at.member}" if at.member else "-"
    try:
        with connection.translated():
            rows = await connection.client.xpending_range(stream, GROUP, start, "+", _STEP)
            pipe = connection.client.pipeline(transaction=False)
            entries = [row["message_id"].decode() for row in rows]
            for entry in entries:
                pipe.xrange(stream, entry, entry)
            found = await pipe.execute() if entries else []
    except StoreError as error:
        if "NOGROUP" in str(error):
            return []  # no worker has ever served this lane
        raise

    members = []
    for entry, row in zip(entries, found, strict=True):
        # One that was acknowledged meanwhile is passed over, and still moves the position on.
        members.append((Position(at.place, entry), _id(row[0][1]) if row else ""))
    return members


def _id(fields: Any) -> str:
    found: bytes = fields[b"id"]
    return found.decode()
