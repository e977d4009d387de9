"""Values to bytes and back: JSON, with sorted keys, so that equal values are equal bytes.

Typed values (dataclasses, msgspec structs, TypedDicts, pydantic models) are written as JSON and
read back by the annotation that asks for them. Never pickle: what stands in Redis can be read by
any language, and nothing that stands there can run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from millstream.errors import NewerRecord, NotEncodable, PayloadTooLarge, SealKeyMissing
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.store.sealing import key_of

#: The first element of every stored record. Readers refuse what they do not know: a record whose
#: value is kept elsewhere has another one, so that no release takes the reference for the value.
RECORD_VERSION = 1
SPILLED_VERSION = 2
#: The same with what the step was called with behind it.
_WITH_INPUTS = {RECORD_VERSION: 3, SPILLED_VERSION: 4}
_PLAIN = (RECORD_VERSION, _WITH_INPUTS[RECORD_VERSION])
_SPILLED = (SPILLED_VERSION, _WITH_INPUTS[SPILLED_VERSION])
#: Bytes of such inputs, beyond what a record may have else.
MOST_INPUTS = 64 * 1024
#: Has what is secret sealed, and another order: see `millstream.store.records`.
SEALED_VERSION = 5
_ATOMS = (str, int, float, bool, type(None))


def _to_json(value: Any) -> Any:
    # pydantic is not a dependency; its models are recognised by what they can do.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")

    raise NotImplementedError(f"objects of type {type(value).__qualname__} have no JSON form")


def _from_json(wanted: type, value: Any) -> Any:
    validate = getattr(wanted, "model_validate", None)
    if callable(validate):
        return validate(value)

    raise NotImplementedError(f"{wanted.__qualname__} cannot be read from JSON")


#: What the encoder raises for what has no JSON form.
_UNWRITABLE = (TypeError, NotImplementedError, ValueError, RecursionError)
_encoder = msgspec.json.Encoder(enc_hook=_to_json, order="deterministic")
_decoder = msgspec.json.Decoder()


def encode(value: Any, what: str, limit: int | None = None) -> bytes:
    """Return the JSON of a value.

    Raises `NotEncodable`, or `PayloadTooLarge` when it is more than ``limit`` bytes. ``what``
    names the value in the error.
    """
    try:
        data = _encoder.encode(value)
    except _UNWRITABLE as error:
        raise NotEncodable(what, str(error) or type(error).__name__) from error

    if limit is not None and len(data) > limit:
        raise PayloadTooLarge(what, len(data), limit)

    return data


#: Returns the plain JSON value. The decoder's own method: every run has its arguments read.
decode: Callable[[bytes], Any] = _decoder.decode


def convert(value: Any, wanted: Any) -> Any:
    """Return a plain JSON value as the annotated type. Raises ``msgspec.ValidationError``."""
    if wanted is Any or wanted is None:
        return value

    return msgspec.convert(value, wanted, dec_hook=_from_json)


def settled(value: Any, wanted: Any, what: str, limit: int) -> tuple[Any, Any]:
    """Return (plain JSON value, value as a later replay will see it).

    A step must give its caller the same value when it runs and when it is replayed, so what ran
    goes the way of what is read: to JSON and back.
    """
    if is_settled(value, wanted, limit):
        return value, value

    plain = decode(encode(value, what, limit))
    return plain, convert(plain, wanted)


def is_settled(value: Any, wanted: Any, limit: int) -> bool:
    """Whether a value would come back from JSON as it is."""
    kind = type(value)
    if kind not in _ATOMS or not (wanted is Any or wanted is kind):
        return False
    if kind is float:
        return math.isfinite(value)
    return kind is not str or len(value) < limit // 4


def digest(arguments: Any) -> str:
    """Return a short hash of a step's arguments.

    What has no JSON form counts by its type alone: a live object has no identity that would
    survive a restart.
    """
    try:
        data = _encoder.encode(arguments)
    except _UNWRITABLE:
        data = repr(_shape(arguments)).encode()

    return hashlib.blake2b(data, digest_size=6).hexdigest()


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _shape(item) for key, item in sorted(value.items(), key=str)}
    if isinstance(value, list | tuple):
        return [_shape(item) for item in value]
    if isinstance(value, _ATOMS):
        return value

    return f"{type(value).__module__}.{type(value).__qualname__}"


def encode_record(record: Record, limit: int | None = None) -> bytes:
    """Return a journal record as stored. Raises `NotEncodable` or `PayloadTooLarge`."""
    kind, target, hashed, status, value, attempts, began, took, attempt, by, inputs, _ = record
    version = SPILLED_VERSION if type(value) is Spilled else RECORD_VERSION
    row: tuple[Any, ...] = (
        version, kind, target, hashed, status, value, attempts, _micros(began), _micros(took),
        attempt, by,
    )  # fmt: skip
    if inputs is not None:
        # No answer may be refused for the sake of a note about it.
        row = (_WITH_INPUTS[version], *row[1:], inputs)
        limit = None if limit is None else limit + MOST_INPUTS
    try:
        data = _encoder.encode(row)
    except _UNWRITABLE:
        data = b""
    if not data or (limit is not None and len(data) > limit):
        # Once more, for the error that says so.
        return encode(row, f"the result of {kind} {target!r}", limit)
    return data


def _micros(seconds: float) -> float:
    """Return seconds to the microsecond. What is rounded by ``round`` takes ten times as long."""
    return int(seconds * 1e6 + 0.5) / 1e6


class Parts(NamedTuple):
    """A record around a value that only the store has."""

    #: How a record of the step begins as long as it has no value.
    open: bytes
    #: What stands before the value, and after it.
    done: bytes
    rest: bytes


def record_parts(record: Record, status: RecordStatus) -> Parts:
    """Return a record without its value; ``status`` is what it has as long as there is none."""
    version = RECORD_VERSION if record.inputs is None else _WITH_INPUTS[RECORD_VERSION]
    head = [version, record.kind, record.target, record.digest]
    tail = [
        record.attempts, round(record.began, 6), round(record.took_s, 6), record.run_attempt,
        record.by,
    ]  # fmt: skip
    if record.inputs is not None:
        tail.append(record.inputs)
    return Parts(
        _encoder.encode([*head, status])[:-1] + b",",
        _encoder.encode([*head, record.status])[:-1] + b",",
        b"," + _encoder.encode(tail)[1:],
    )


def decode_record(data: bytes) -> Record:
    """Return a journal record. Raises `SealKeyMissing` for a sealed one: see `records.decode`."""
    version, *row = decode(data)
    inputs = row.pop() if version in _WITH_INPUTS.values() else None
    if version in _SPILLED:
        row[4] = Spilled(*row[4])
    elif version == SEALED_VERSION:
        raise SealKeyMissing(key_of(data), f"the record of {row[0]} {row[1]!r}")
    elif version not in _PLAIN:
        raise NewerRecord(version)

    kind, target, hashed, status, value, attempts, began, took, attempt, by = row

    return Record(
        kind=StepKind(kind),
        target=target,
        digest=hashed,
        status=RecordStatus(status),
        value=value,
        attempts=attempts,
        began=began,
        took_s=took,
        run_attempt=attempt,
        by=by,
        inputs=inputs,
    )
