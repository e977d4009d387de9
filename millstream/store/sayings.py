"""What a run has said to whoever watches it: read from where one stands, or heard as it comes.

Promise: what is kept is read in order, once; and it is known when something before it is not kept
any more. A run's events are bounded, and the oldest leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from millstream.model.progress import EventKind
from millstream.store import codec
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.sealing import Place, opened

#: Events that are read in one call: each may be 64 KiB.
PAGE = 100


@dataclass(frozen=True, slots=True)
class Said:
    """One event."""

    id: str
    kind: EventKind
    name: str
    data: Any
    at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """Some of what a run has said, the oldest first."""

    said: tuple[Said, ...]
    #: How much it had said before these; None: not known.
    before: int | None
    #: Whether the event after which was asked is not kept any more.
    cut: bool


async def heard(
    connection: Connection, lane: Lane, run_id: str, after: str, most: int = PAGE
) -> Heard:
    """Return what a run said after an event id, at most ``most`` events. Raises `StoreError`."""
    key = lane.events(run_id)
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.xrange(key, f"({after}" if after else "-", "+", count=most)
        pipe.xinfo_stream(key)
        entries, info = await pipe.execute(raise_on_error=False)
        for answer in (entries, info):
            if isinstance(answer, Exception) and not _says_nothing(answer):
                raise answer
    if isinstance(info, Exception):
        return Heard((), None if after else 0, cut=False)

    where = Place(lane.queue, run_id, "event")
    said = tuple(
        _said(entry, fields, opened(connection.sealer, where, fields[b"data"]))
        for entry, fields in entries
    )
    total, gone = int(info["entries-added"]), int(info["entries-added"]) - int(info["length"])
    cut = bool(after) and gone > 0 and place(after) < place(info["first-entry"][0].decode())
    if len(said) < most:
        return Heard(said, total - len(said), cut)
    return Heard(said, gone if cut or not after else None, cut)


async def with_news(
    connection: Connection, client: Any, lane: Lane, places: Mapping[str, str], block_s: float
) -> list[str]:
    """Return which of several runs have said something after their event ids.

    Waits at most ``block_s`` for the first of them, on a ``client`` of its own.
    """
    streams = {lane.events(run_id): after for run_id, after in places.items()}
    with connection.translated():
        # One event of each is enough to know; zero would wait for ever.
        reply = await client.xread(streams, count=1, block=max(1, round(block_s * 1000)))

    keys = reply if isinstance(reply, dict) else [key for key, _ in reply or []]
    prefix = len(lane.events(""))
    return [key.decode()[prefix:] for key in keys]


def place(event_id: str) -> tuple[int, int]:
    """Return an event id as Redis orders it."""
    ms, _, number = event_id.partition("-")
    return int(ms), int(number or 0)


def _said(entry: bytes, fields: Mapping[bytes, bytes], encoded: bytes) -> Said:
    name, data = codec.decode(encoded)
    kind = EventKind(fields.get(b"kind", b"emit").decode())
    return Said(entry.decode(), kind, name, data, int(entry.split(b"-")[0]) / 1000)


def _says_nothing(error: Exception) -> bool:
    """Whether it is said that there is no stream: a run that has said nothing has none."""
    return isinstance(error, ResponseError) and "no such key" in str(error)
