"""The journals of runs, read whole before a run goes on. Written only by `commits`."""

from __future__ import annotations

from millstream.model.journal import Record
from millstream.store import codec
from millstream.store.connection import Connection
from millstream.store.keys import Lane

_PAGE = 500


async def load(connection: Connection, lane: Lane, run_id: str) -> dict[str, Record]:
    """Return all records of a run by step key, read in pages."""
    rows: dict[bytes, bytes] = {}
    cursor = 0
    with connection.translated():
        while True:
            cursor, page = await connection.client.hscan(lane.journal(run_id), cursor, count=_PAGE)
            rows.update(page)
            if not cursor:
                break

    return {key.decode(): codec.decode_record(data) for key, data in rows.items()}
