"""Go through the runs of a queue, lane by lane, with a mark that any process can go on from."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from millstream.errors import UsageError
from millstream.model.run import RunState, RunStatus
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.places import DEAD, Position, is_stream, page_of, states_places

Matches = Callable[[RunStatus], bool]
#: Entry ids of streams, and ids of runs: what a position may name.
_MEMBER = re.compile(r"[A-Za-z0-9._:/@+=-]{0,200}")


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs of a queue. ``cursor`` goes on behind them; None: there are no more."""

    runs: tuple[RunStatus, ...]
    cursor: str | None


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    lane: int
    place: str
    member: str
    score: float


async def page(  # noqa: PLR0917 - where, from where on, and what is wanted
    connection: Connection,
    lanes: Sequence[Lane],
    places: Sequence[str],
    cursor: str | None,
    limit: int,
    matches: Matches,
) -> RunPage:
    """Return the next runs that match. See `Client.page`. Raises `UsageError`, `StoreError`."""
    if not places:
        return RunPage((), None)

    number, after = (0, None) if cursor is None else _read(cursor, len(lanes), places)
    found: list[RunStatus] = []
    for lane in lanes[number:]:
        part = await page_of(connection, lane, places, after, limit - len(found), matches)
        found += part.runs
        if part.next is not None:
            return RunPage(tuple(found), _written(lane, part.next))
        after = None

    return RunPage(tuple(found), None)


def places_of(states: frozenset[RunState], *, dead: bool, limited: bool) -> tuple[str, ...]:
    """Return where to look: for runs in some states, or among the dead letters."""
    return (DEAD,) if dead else states_places(states, limited=limited)


def _written(lane: Lane, at: Position) -> str:
    data = msgspec.json.encode(_Cursor(lane.number, at.place, at.member, at.score))
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read(cursor: str, lanes: int, places: Sequence[str]) -> tuple[int, Position]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = msgspec.json.decode(
            base64.b64decode(padded, altchars=b"-_", validate=True), type=_Cursor
        )
    except (msgspec.MsgspecError, binascii.Error, ValueError) as error:
        raise UsageError(f"cursor {cursor[:40]!r} is none that was given out") from error
    sound = (
        0 <= found.lane < lanes
        and found.place in places
        and _MEMBER.fullmatch(found.member)
        and math.isfinite(found.score)
        and (not is_stream(found.place) or re.fullmatch(r"\d{1,19}-\d{1,19}", found.member))
    )
    if not sound:
        raise UsageError(f"cursor {cursor[:40]!r} does not belong to this list")

    return found.lane, Position(found.place, found.member, found.score)
