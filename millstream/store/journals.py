"""The journals of runs, read whole before a run goes on. Written only by `commits`."""

from __future__ import annotations

from redis.exceptions import ResponseError

from millstream.errors import KeyOccupied
from millstream.model.journal import Record
from millstream.store import codec, records
from millstream.store.connection import Connection
from millstream.store.foreign import is_foreign
from millstream.store.keys import Lane

_PAGE = 500


async def load(connection: Connection, lane: Lane, run_id: str) -> dict[str, Record]:
    """Return all records of a run by step key, read in pages.

    Raises `StoreError`, `KeyOccupied` when something else stands where the journal belongs, or
    `SealKeyMissing`.
    """
    rows: dict[bytes, bytes] = {}
    cursor = 0
    with connection.translated():
        while True:
            try:
                cursor, page = await connection.client.hscan(
                    lane.journal(run_id), cursor, count=_PAGE
                )
            except ResponseError as error:
                if is_foreign(error):
                    raise KeyOccupied(run_id, "journal") from error
                raise
            rows.update(page)
            if not cursor:
                break

    if connection.sealer is None:
        return {key.decode(): codec.decode_record(data) for key, data in rows.items()}

    return {
        key: records.decode(connection.sealer, lane.queue, run_id, key, data)
        for key, data in ((field.decode(), data) for field, data in rows.items())
    }
