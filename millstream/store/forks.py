"""A run that begins with what another one has recorded: read there, written here in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from millstream.model.journal import Spilled
from millstream.model.run import Priority
from millstream.store import codec, records, spills
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import Resized, accepted, place_of_arguments
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Sealer, opened

_PAGE = 500
_FIELDS = ("workflow", "args", "version", "priority", "tenant", "timeout", "attributes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A run as it stands: what it was asked to do, and what it has recorded. All in clear."""

    workflow: str
    arguments: bytes
    version: str
    priority: Priority
    tenant: str
    timeout_ms: str
    attributes: str
    #: By step key, as they are stored in clear.
    records: dict[str, bytes]
    #: By name: the parts of values that are too large for a journal, those of other records too.
    parts: dict[str, bytes] = field(default_factory=dict)


async def source(connection: Connection, lane: Lane, run_id: str) -> Source | None:
    """Read a run to fork; None when there is none. Raises `StoreError` or `SealingError`.

    What is sealed is opened: it belongs to that run, and is sealed anew for the other one.
    """
    with connection.translated():
        row = await connection.client.hmget(lane.run(run_id), *_FIELDS)
        if row[0] is None:
            return None
        journal = await _whole(connection, lane.journal(run_id))
        parts = await _whole(connection, lane.spilled(run_id))

    workflow, arguments, *rest = row
    version, priority, tenant, timeout_ms, attributes = (
        part.decode() if part else "" for part in rest
    )
    sealer = connection.sealer
    return Source(
        workflow=workflow.decode(),
        arguments=opened(sealer, place_of_arguments(lane, run_id), arguments),
        version=version,
        priority=Priority(priority or "normal"),
        tenant=tenant,
        timeout_ms=timeout_ms,
        attributes=attributes,
        records={
            key: _opened(sealer, lane, run_id, key, data, parts) for key, data in journal.items()
        },
        parts=parts,
    )


async def known(connection: Connection, lane: Lane, run_id: str) -> tuple[str, bytes, str] | None:
    """Return workflow, arguments in clear and origin of a run; None when there is none."""
    with connection.translated():
        row = await connection.client.hmget(lane.run(run_id), "workflow", "args", "origin")
    if row[0] is None:
        return None
    arguments = opened(connection.sealer, place_of_arguments(lane, run_id), row[1])
    return row[0].decode(), arguments, (row[2] or b"").decode()


async def fork(  # noqa: PLR0917 - where, who, and what
    connection: Connection, lane: Lane, epoch: int, run_id: str, origin: str, begun: Source
) -> bool | str | Resized:
    """Accept a run with its first records; answers as `runs.enqueue` does for one run."""
    if connection.sealer is not None:
        begun = _sealed(connection.sealer, lane, run_id, begun)
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


def _opened(  # noqa: PLR0917 - how, where, and what
    sealer: Sealer | None, lane: Lane, run_id: str, key: str, data: bytes, parts: dict[str, bytes]
) -> bytes:
    """Return a record in clear, and leave the parts that it refers to in clear, too."""
    if sealer is None and not records.is_sealed(data):
        return data
    record = records.decode(sealer, lane.queue, run_id, key, data)
    if type(record.value) is Spilled:
        kept = record.value
        names = spills.names(kept)
        whole = spills.checked(run_id, kept, [parts.get(name, b"") for name in names])
        value = opened(sealer, spills.place_of(lane.queue, run_id, kept), whole)
        if value is not whole:
            for name in names:
                parts.pop(name, None)
            record = record._replace(value=spills.reference(key, value))
            parts.update(spills.split(record.value, value))
    return records.plain(record)


def _sealed(sealer: Sealer, lane: Lane, run_id: str, begun: Source) -> Source:
    """Return a run as it is written under another id."""
    journal: dict[str, bytes] = {}
    parts: dict[str, bytes] = {}
    for key, data in begun.records.items():
        record = codec.decode_record(data)
        if type(record.value) is Spilled:
            whole = b"".join(begun.parts[name] for name in spills.names(record.value))
            value = spills.sealed(sealer, lane.queue, run_id, key, whole)
            record = record._replace(value=spills.reference(key, value))
            parts.update(spills.split(record.value, value))
        record = record._replace(sealed=sealer.active)
        journal[key] = records.encode(sealer, lane.queue, run_id, key, record)
    arguments = sealer.seal(place_of_arguments(lane, run_id), begun.arguments)
    return replace(begun, arguments=arguments, records=journal, parts=parts)
