"""Find runs without an index that the fast path would pay for.

What is alive is found in the structures that exist anyway: streams, backlogs, timers, leases. What
has ended stands in one sorted set, written in the batch that settled it.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.model.approval import OpenApproval
from millstream.model.elicitation import question_of
from millstream.model.journal import Record, RecordStatus
from millstream.model.message import MessageKind
from millstream.model.run import RunState, RunStatus
from millstream.store import records
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.places import DEAD, Position, page_of, states_places

#: What is awaited from a person begins with one of these.
_QUESTIONS = (MessageKind.APPROVAL.of(""), MessageKind.INPUT.of(""))


async def list_runs(
    connection: Connection,
    lane: Lane,
    states: frozenset[RunState],
    limit: int,
    matches: Callable[[RunStatus], bool] = lambda _: True,
    *,
    limited: bool = False,
) -> list[RunStatus]:
    """Return at most ``limit`` runs in these states that match, the newest first.

    Each of the places where runs stand is looked through until so many are found there.
    ``limited``: only those that wait for a permit, which stand together.
    """

    def wanted(status: RunStatus) -> bool:
        return status.state in states and matches(status)

    found: dict[str, RunStatus] = {}
    for place in states_places(states, limited=limited):
        for status in await _in_place(connection, lane, place, limit, wanted):
            found[status.id] = status

    newest = sorted(found.values(), key=lambda status: status.times.enqueued, reverse=True)
    return newest[:limit]


async def dead_letters(connection: Connection, lane: Lane, limit: int) -> list[RunStatus]:
    """Return the failed runs that stand in the dead-letter index, newest first."""
    return await _in_place(connection, lane, DEAD, limit, lambda _: True)


async def _in_place(
    connection: Connection,
    lane: Lane,
    place: str,
    limit: int,
    matches: Callable[[RunStatus], bool],
) -> list[RunStatus]:
    found: list[RunStatus] = []
    at: Position | None = Position(place)
    while at is not None and len(found) < limit:
        page = await page_of(connection, lane, (place,), at, limit - len(found), matches)
        found += page.runs
        at = page.next
    return found


async def open_approvals(connection: Connection, lane: Lane, limit: int) -> list[OpenApproval]:
    """Return questions that parked runs wait for the answer to, at most ``limit``."""

    def asks(status: RunStatus) -> bool:
        return any(name.startswith(_QUESTIONS) for name in status.awaits)

    found: list[OpenApproval] = []
    for status in await list_runs(connection, lane, frozenset({RunState.PARKED}), limit, asks):
        found += await questions_of(connection, lane, status)
    return found


async def questions_of(connection: Connection, lane: Lane, status: RunStatus) -> list[OpenApproval]:
    """Return the questions that one parked run waits for the answer to."""
    keys = [name[2:] for name in status.awaits if name.startswith(_QUESTIONS)]
    if not keys:
        return []
    with connection.translated():
        rows = await connection.client.hmget(lane.journal(status.id), keys)
    seal = connection.sealer
    found = [
        None if row is None else records.decode(seal, lane.queue, status.id, key, row)
        for key, row in zip(keys, rows, strict=True)
    ]
    return [
        _open(status, key, record)
        for key, record in zip(keys, found, strict=True)
        if record is not None and record.status is RecordStatus.WAITING
    ]


def _open(status: RunStatus, key: str, record: Record) -> OpenApproval:
    asks = record.value.get("asks")
    return OpenApproval(
        run_id=status.id,
        queue=status.queue,
        workflow=status.workflow,
        key=key,
        question=record.value["question"] if asks is None else question_of(asks),
        data=None if asks is not None else record.value["data"],
        asked=record.began,
        due=record.value.get("due"),
        asks=asks,
    )
