"""Records of journals with what is secret in them sealed: the value, and what tells of arguments.

What stands in clear is what the scripts compare and people list: kind, target, status, times. The
hash is sealed because it would tell equal arguments from others, and short ones could be guessed by
it. A record of a message is closed by a script, which can seal nothing: the message stands in it as
it was sent, sealed by who sent it, and beside it, sealed, the hash and whose message it is.

Plain records are read and left as they are. Without a sealer everything here is `codec`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.model.message import CHILDREN
from millstream.model.run import RunState
from millstream.store import codec
from millstream.store.codec import SEALED_VERSION, Parts
from millstream.store.sealing import Place, Sealer, opened

_HEAD = b"[%d," % SEALED_VERSION
_NOTHING = b'""'


class _Row(msgspec.Struct, array_like=True):
    """A sealed record as it is stored."""

    version: int
    kind: str
    target: str
    status: str
    #: Sealed ``[hash, inputs, value]``, or ``[hash, inputs, null, reference]``; or a message as it
    #: was sent.
    value: msgspec.Raw
    attempts: int
    began: float
    took_s: float
    run_attempt: int
    by: str
    #: Beside a message: sealed ``[hash, inputs, queue, name]``, the last two of the message.
    beside: msgspec.Raw


class _Wait(msgspec.Struct, array_like=True):
    """What stands, sealed, beside a message."""

    digest: str
    inputs: Any
    #: Of the child whose end it is; else of the run itself.
    queue: str
    #: Of the message, as it is stored.
    name: str


_rows = msgspec.json.Decoder(_Row)
_waits = msgspec.json.Decoder(_Wait)
_ends = msgspec.json.Decoder(tuple[str, msgspec.Raw])


def encode(  # noqa: PLR0917 - how, where, and what
    sealer: Sealer, queue: str, run_id: str, key: str, record: Record, limit: int | None = None
) -> bytes:
    """Return a record as stored, sealed if it says so.

    Raises `NotEncodable`, or `PayloadTooLarge` as its plain form does.
    """
    if not record.sealed:
        return codec.encode_record(record, limit)
    value = record.value
    secret: list[Any] = [record.digest, record.inputs]
    secret += [None, value] if type(value) is Spilled else [value]
    if limit is not None and record.inputs is not None:
        limit += codec.MOST_INPUTS
    data = codec.encode(secret, f"the result of {record.kind} {record.target!r}", limit)
    sealed = sealer.seal(Place(queue, run_id, "record", key), data)
    return codec.encode(_row(record, record.status, msgspec.Raw(sealed), ""), "a record")


def parts(  # noqa: PLR0917 - how, where, and what
    sealer: Sealer,
    run: tuple[str, str],
    key: str,
    record: Record,
    waiting: Record,
    message: tuple[str, str],
) -> Parts:
    """Return a record around a message, which the store has; see `codec.record_parts`.

    ``waiting`` is what stands as long as there is none; ``message`` is its name, behind the queue
    of the child whose end it is, else that of the run.
    """
    wait = codec.encode(_Wait(record.digest, record.inputs, *message), "a wait")
    beside = sealer.seal(Place(*run, "wait", key), wait)
    row = _row(record, record.status, None, msgspec.Raw(beside))
    before, _, after = row[:4], row[4], row[5:]
    return Parts(
        open_of(waiting),
        codec.encode(before, "a record")[:-1] + b",",
        b"," + codec.encode(after, "a record")[1:],
    )


def open_of(waiting: Record) -> bytes:
    """Return how the stored record of a wait begins, sealed or not."""
    if not waiting.sealed:
        return codec.record_parts(waiting, waiting.status).open
    head = [SEALED_VERSION, waiting.kind, waiting.target, waiting.status]
    return codec.encode(head, "a record")[:-1] + b","


def decode(sealer: Sealer | None, queue: str, run_id: str, key: str, data: bytes) -> Record:
    """Return a record, sealed or not. Raises `SealKeyMissing`, `SealBroken` or `NewerRecord`."""
    if sealer is None or data[: len(_HEAD)] != _HEAD:
        return codec.decode_record(data)

    row = _rows.decode(data)
    beside = bytes(row.beside)
    if beside == _NOTHING:
        sealed = opened(sealer, Place(queue, run_id, "record", key), bytes(row.value))
        digest, inputs, value, *spilled = codec.decode(sealed)
        return _record(row, digest, inputs, Spilled(*spilled[0]) if spilled else value)

    wait = _waits.decode(opened(sealer, Place(queue, run_id, "wait", key), beside))
    return _record(row, wait.digest, wait.inputs, _message(sealer, run_id, wait, bytes(row.value)))


def is_sealed(data: bytes) -> bool:
    """Whether a record has what is secret in it sealed."""
    return data[: len(_HEAD)] == _HEAD


def plain(record: Record) -> bytes:
    """Return a record as it would be stored if nothing were sealed."""
    return codec.encode_record(record._replace(sealed=False))


def _message(sealer: Sealer, run_id: str, wait: _Wait, payload: bytes) -> Any:
    kind, _, child = wait.name.partition(":")
    if kind != CHILDREN:
        return codec.decode(
            opened(sealer, Place(wait.queue, run_id, "message", wait.name), payload)
        )
    # The end of a child is sealed as what it is: the result, or the error, of that run.
    state, ended = _ends.decode(payload)
    what = "result" if state == RunState.COMPLETED else "error"
    return [state, codec.decode(opened(sealer, Place(wait.queue, child, what), bytes(ended)))]


def _row(record: Record, status: RecordStatus, value: Any, beside: Any) -> list[Any]:
    return [
        SEALED_VERSION, record.kind, record.target, status, value, record.attempts,
        round(record.began, 6), round(record.took_s, 6), record.run_attempt, record.by, beside,
    ]  # fmt: skip


def _record(row: _Row, digest: str, inputs: Any, value: Any) -> Record:
    return Record(
        kind=StepKind(row.kind),
        target=row.target,
        digest=digest,
        status=RecordStatus(row.status),
        value=value,
        attempts=row.attempts,
        began=row.began,
        took_s=row.took_s,
        run_attempt=row.run_attempt,
        by=row.by,
        inputs=inputs,
        sealed=True,
    )
