"""Find runs without an index that the fast path would pay for.

What is alive is found in the structures that exist anyway: streams, backlogs, timers, leases. What
has ended stands in one sorted set, written in the batch that settled it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from millstream.errors import StoreError
from millstream.model.approval import OpenApproval
from millstream.model.elicitation import question_of
from millstream.model.journal import Record, RecordStatus
from millstream.model.message import MessageKind
from millstream.model.run import RunState, RunStatus
from millstream.store import records, runs
from millstream.store.connection import Connection
from millstream.store.keys import FRESH, GROUP, LEVELS, Lane

_PAGE = 200

_Ids = AsyncIterator[list[str]]

#: What is awaited from a person begins with one of these.
_QUESTIONS = (MessageKind.APPROVAL.of(""), MessageKind.INPUT.of(""))


async def list_runs(
    connection: Connection,
    lane: Lane,
    states: frozenset[RunState],
    limit: int,
    matches: Callable[[RunStatus], bool] = lambda _: True,
) -> list[RunStatus]:
    """Return at most ``limit`` runs in these states that match, the newest first.

    Each of the places where runs stand is looked through until so many are found there.
    """
    found: dict[str, RunStatus] = {}
    for source in _sources(connection, lane, states):
        before = len(found)
        async for ids in source:
            page = await runs.statuses(connection, lane, [x for x in ids if x not in found])
            for status in page.values():
                if status.state in states and matches(status):
                    found[status.id] = status
            if len(found) - before >= limit:
                break

    newest = sorted(found.values(), key=lambda status: status.times.enqueued, reverse=True)
    return newest[:limit]


async def dead_letters(connection: Connection, lane: Lane, limit: int) -> list[RunStatus]:
    """Return the failed runs that stand in the dead-letter index, newest first."""
    found: list[RunStatus] = []
    async for ids in _ranked(connection, lane.dead):
        page = await runs.statuses(connection, lane, ids)
        found += page.values()
        if len(found) >= limit:
            break

    return found[:limit]


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
    rows = await _ask(connection, "HMGET", lane.journal(status.id), *keys)
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


def _sources(connection: Connection, lane: Lane, states: frozenset[RunState]) -> list[_Ids]:
    sources: list[_Ids] = []
    if RunState.RUNNING in states:
        sources += [_pending(connection, lane.stream(level)) for level in LEVELS]
    if RunState.QUEUED in states:
        sources += [_entries(connection, lane.stream(level)) for level in LEVELS]
        waiting = [*(lane.backlog(level) for level in FRESH), lane.limited]
        sources += [_ranked(connection, key) for key in waiting]
    if RunState.SCHEDULED in states:
        sources.append(_ranked(connection, lane.timers))
    if RunState.PARKED in states:
        sources.append(_ranked(connection, lane.parked))
    if any(state.final for state in states):
        sources.append(_ranked(connection, lane.ended))
    return sources


async def _ranked(connection: Connection, key: str) -> _Ids:
    start = 0
    while page := await _ask(connection, "ZREVRANGE", key, start, start + _PAGE - 1):
        yield [run_id.decode() for run_id in page]
        start += _PAGE


async def _entries(connection: Connection, stream: str) -> _Ids:
    last = "+"
    while page := await _ask(connection, "XREVRANGE", stream, last, "-", "COUNT", _PAGE):
        yield _ids(page)
        last = f"({page[-1][0].decode()}"


async def _pending(connection: Connection, stream: str) -> _Ids:
    last = "-"
    while True:
        try:
            page = await _ask(
                connection, "XPENDING", stream, GROUP, last, "+", _PAGE, parse_detail=True
            )
        except StoreError as error:
            if "NOGROUP" in str(error):
                return  # no worker has ever served this queue
            raise
        if not page:
            return
        ids = []
        for row in page:
            entry = row["message_id"].decode()
            ids += _ids(await _ask(connection, "XRANGE", stream, entry, entry))
        yield ids
        last = f"({page[-1]['message_id'].decode()}"


def _ids(entries: Any) -> list[str]:
    found = []
    for _, fields in entries:
        # redis-py makes a mapping of an entry's fields, unless the reply has a raw shape.
        run_id = fields[b"id"] if isinstance(fields, dict) else fields[1]
        found.append(run_id.decode())

    return found


async def _ask(connection: Connection, *command: Any, **options: Any) -> Any:
    with connection.translated():
        return await connection.client.execute_command(*command, **options)
