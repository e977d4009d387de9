"""A run that begins with what another one has recorded: read there, written here in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millstream.model.run import Priority
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import Resized, accepted
from millstream.store.scripts import Argument, call

_PAGE = 500
_FIELDS = ("workflow", "args", "version", "priority", "tenant", "timeout", "attributes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A run as it stands: what it was asked to do, and what it has recorded."""

    workflow: str
    arguments: bytes
    version: str
    priority: Priority
    tenant: str
    timeout_ms: str
    attributes: str
    #: By step key, as they are stored.
    records: dict[str, bytes]
    #: By name: the parts of values that are too large for a journal, those of other records too.
    parts: dict[str, bytes] = field(default_factory=dict)


async def source(connection: Connection, lane: Lane, run_id: str) -> Source | None:
    """Read a run to fork; None when there is none. Raises `StoreError`."""
    with connection.translated():
        row = await connection.client.hmget(lane.run(run_id), *_FIELDS)
        if row[0] is None:
            return None
        records = await _whole(connection, lane.journal(run_id))
        parts = await _whole(connection, lane.spilled(run_id))

    workflow, arguments, *rest = row
    version, priority, tenant, timeout_ms, attributes = (
        part.decode() if part else "" for part in rest
    )
    return Source(
        workflow=workflow.decode(),
        arguments=arguments,
        version=version,
        priority=Priority(priority or "normal"),
        tenant=tenant,
        timeout_ms=timeout_ms,
        attributes=attributes,
        records=records,
        parts=parts,
    )


async def known(connection: Connection, lane: Lane, run_id: str) -> tuple[str, bytes, str] | None:
    """Return workflow, arguments and origin of a run; None when there is none."""
    with connection.translated():
        row = await connection.client.hmget(lane.run(run_id), "workflow", "args", "origin")
    if row[0] is None:
        return None
    return row[0].decode(), row[1], (row[2] or b"").decode()


async def fork(  # noqa: PLR0917 - where, who, and what
    connection: Connection, lane: Lane, epoch: int, run_id: str, origin: str, begun: Source
) -> bool | str | Resized:
    """Accept a run with its first records; answers as `runs.enqueue` does for one run."""
    args: list[Argument] = [
        epoch, run_id, begun.workflow, begun.version, begun.arguments, begun.priority,
        begun.timeout_ms, begun.tenant, begun.attributes, origin, len(begun.records),
    ]  # fmt: skip
    for key, value in (*begun.records.items(), *begun.parts.items()):
        args += (key, value)
    with connection.translated():
        answer: Sequence[int | bytes] = await call(connection.scripts, "fork", lane, args)

    first = answer[0]
    return Resized(int(answer[1]), int(answer[2])) if first == -1 else accepted(first)


async def _whole(connection: Connection, key: str) -> dict[str, bytes]:
    """Read a hash page by page."""
    found: dict[str, bytes] = {}
    cursor = 0
    while True:
        cursor, page = await connection.client.hscan(key, cursor, count=_PAGE)
        found.update({name.decode(): data for name, data in page.items()})
        if not cursor:
            return found
