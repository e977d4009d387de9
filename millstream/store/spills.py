"""Values that are too large for a journal, kept beside it in parts.

The record of such a step holds a reference: where the parts are, how many bytes they make, and
their hash. The parts are written first, under the fence of whoever holds the run, and live as long
as the journal does; a journal that is loaded does not bring them along. It does not know what the
values are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from redis.exceptions import ResponseError

from millstream.errors import KeyOccupied, ValueLost
from millstream.model.journal import Spilled
from millstream.model.limits import KIB, LIMITS, Limits
from millstream.model.run import Delivery
from millstream.store.commits import Verdict
from millstream.store.connection import Connection
from millstream.store.foreign import is_foreign
from millstream.store.keys import Lane
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place, Sealer, is_sealed, key_of, opened

#: One part: large enough to be few, small enough to hold up nobody else's call.
PART = 512 * KIB
#: No value that is smaller may be spilled: whoever ends a run looks for parts only when the journal
#: has more bytes than this (``lua/_moves.lua``, `conclude`).
LEAST = 16 * KIB


def reference(step_key: str, data: bytes) -> Spilled:
    """Return what stands in the record of a step instead of this value.

    The name of one that is sealed ends with that of the key: so it is known without being read.
    """
    name = _name(step_key)
    if is_sealed(data):
        name = f"{name}.{key_of(data)}"
    return Spilled(name, len(data), -(-len(data) // PART), _digest(data))


def sealed(sealer: Sealer | None, queue: str, run_id: str, step_key: str, data: bytes) -> bytes:
    """Return a value as it is kept: whole and sealed, before it is taken apart."""
    if sealer is None:
        return data
    return sealer.seal(Place(queue, run_id, "value", _name(step_key)), data)


def split(spilled: Spilled, data: bytes) -> dict[str, bytes]:
    """Return the parts of a value by their names."""
    return {
        name: data[number * PART : (number + 1) * PART]
        for number, name in enumerate(names(spilled))
    }


def names(spilled: Spilled) -> list[str]:
    """Return the names of the parts, in order."""
    return [f"{spilled.name}:{number}" for number in range(spilled.parts)]


async def keep(  # noqa: PLR0917 - three say where and by whom, the others what
    connection: Connection,
    lane: Lane,
    token: str,
    held: Delivery,
    spilled: Spilled,
    data: bytes,
    limits: Limits = LIMITS,
) -> Verdict:
    """Write all parts of a value; stop at the first that is refused. Raises `StoreError`.

    Safe to repeat as a whole.
    """
    verdict = Verdict.WRITTEN
    for name, part in split(spilled, data).items():
        args: list[Argument] = [
            token, held.run_id, held.fence, name, part, limits.journal_bytes,
        ]  # fmt: skip
        with connection.translated():
            verdict = Verdict(await call(connection.scripts, "spill", lane, args))
        if verdict not in {Verdict.WRITTEN, Verdict.CANCEL}:
            break

    return verdict


async def load(connection: Connection, lane: Lane, run_id: str, spilled: Spilled) -> bytes:
    """Return a value, whole and as it was written.

    Raises `StoreError`, `ValueLost`, `KeyOccupied` when something else stands there, or
    `SealKeyMissing`.
    """
    parts = []
    with connection.translated():
        for name in names(spilled):
            try:
                part = await connection.client.hget(lane.spilled(run_id), name)
            except ResponseError as error:
                if is_foreign(error):
                    raise KeyOccupied(run_id, "large values") from error
                raise
            parts.append(part or b"")

    data = checked(run_id, spilled, parts)
    return opened(connection.sealer, place_of(lane.queue, run_id, spilled), data)


def place_of(queue: str, run_id: str, spilled: Spilled) -> Place:
    """Return what a value is sealed for: the name says of which step it is."""
    return Place(queue, run_id, "value", spilled.name.partition(".")[0])


def checked(run_id: str, spilled: Spilled, parts: Sequence[bytes]) -> bytes:
    """Return the whole that parts make. Raises `ValueLost` when it is not what was recorded."""
    data = b"".join(parts)
    if (len(data), _digest(data)) != (spilled.size, spilled.digest):
        raise ValueLost(run_id, spilled.size, len(data))
    return data


def _name(step_key: str) -> str:
    return hashlib.blake2b(step_key.encode(), digest_size=9).hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
