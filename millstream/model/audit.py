"""Who did what: an entry of the audit trail, and the chain that shows a gap or an edit.

Each entry is a line of JSON that names the hash of the one before it. It knows neither Redis nor
who writes; whoever has the lines can verify them, with nothing but SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

#: What stands before the first entry.
NO_HASH = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What somebody did."""

    #: A person or a principal, as far as it is known.
    actor: str
    #: A machine and a program.
    origin: str
    verb: str
    queue: str
    #: A run, a queue, a schedule or a key, by its name.
    target: str
    #: What came of it.
    result: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An act in its place. The order of the fields is that of the line."""

    seq: int
    #: Milliseconds of the Unix epoch by the clock of Redis.
    at: int
    actor: str
    origin: str
    verb: str
    queue: str
    target: str
    result: str
    details: dict[str, Any]
    #: Hash of the entry before.
    prev: str


@dataclass(frozen=True, slots=True)
class End:
    """Where a trail ends, or begins: the number of an entry, and its hash."""

    seq: int = 0
    hash: str = NO_HASH


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain does not hold, and why."""

    seq: int
    reason: str


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Entry)


def chained(acts: Iterable[Act], after: End, at_ms: int) -> list[tuple[str, bytes]]:
    """Return the hash and the line of each act that follows an entry."""
    links = []
    seq, prev = after.seq, after.hash
    for act in acts:
        seq += 1
        line = _encoder.encode(
            Entry(
                seq=seq,
                at=at_ms,
                actor=act.actor,
                origin=act.origin,
                verb=act.verb,
                queue=act.queue,
                target=act.target,
                result=act.result,
                details=dict(act.details),
                prev=prev,
            )
        )
        prev = hash_of(line)
        links.append((prev, line))

    return links


def hash_of(line: bytes) -> str:
    """Return the hash under which the next entry knows this one."""
    return hashlib.sha256(line).hexdigest()


def entry_of(line: bytes) -> Entry:
    """Return what a line says. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(line)


class Chain:
    """Verifies a trail line by line, from an entry that is believed."""

    def __init__(self, after: End) -> None:
        self.end = after
        self.count = 0

    def follow(self, line: bytes, written: str | None = None) -> Break | None:
        """Return why the next line does not follow; None when it does.

        ``written`` is the hash that was stored beside it.
        """
        expected = self.end.seq + 1
        try:
            entry = entry_of(line)
        except msgspec.DecodeError:
            return Break(expected, "it cannot be read")
        found = hash_of(line)
        self.count += 1
        self.end, before = End(entry.seq, found), self.end
        if entry.seq > expected:
            missing = (
                f"{expected}" if entry.seq == expected + 1 else f"{expected} to {entry.seq - 1}"
            )
            return Break(expected, f"missing: {missing}")
        if entry.seq < expected:
            return Break(expected, f"entry {entry.seq} stands where {expected} should")
        if written is not None and written != found:
            return Break(entry.seq, "it was changed: its hash is not the one that was stored")
        if entry.prev != before.hash:
            return Break(entry.seq, "it does not follow from the entry before it")

        return None
