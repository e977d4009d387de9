"""How whoever waits learns the end of a run: one subscription a lane, however many runs.

A message is a hint. The truth is the run's record, read before waiting and again from time to
time, so that a lost message costs a pause and never an answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.model.limits import LIMITS
from millstream.model.run import FINAL, RunState
from millstream.store import codec
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import call
from millstream.store.sealing import Place, opened
from millstream.store.subscription import Subscription

#: Events that are read in one call: each may be 64 KiB.
_PAGE = 100


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    state: RunState
    #: The encoded result, or the encoded error; as it is stored, sealed perhaps.
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """The run goes on; its end will be published to the inbox."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such run."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something was published: a run ended. ``end`` is None when it was too large to publish."""

    run_id: str
    end: End | None


async def watch(
    connection: Connection, lane: Lane, inbox: str, ids: Sequence[str]
) -> list[End | Pending | Unknown]:
    """Read how runs ended, and ask to be told of those that have not. Raises `StoreError`."""
    with connection.translated():
        answers = await call(connection.scripts, "watch", lane, [inbox, LIMITS.waiters, *ids])

    return [_answer(row) for row in answers]


class Inbox(Subscription):
    """The channel of one client in one lane."""

    def __init__(self, connection: Connection, lane: Lane, name: str) -> None:
        super().__init__(connection, lane.inbox(name))

    async def messages(self, pause_s: float) -> AsyncIterator[Message | None]:
        """Yield messages; None when nothing came for ``pause_s``. Raises `StoreError`."""
        while True:
            data = await self.next(pause_s)
            yield None if data is None else _message(data)


@dataclass(frozen=True, slots=True)
class Said:
    """One event that a run emitted."""

    id: str
    name: str
    data: Any
    at: float


async def said(
    connection: Connection, lane: Lane, run_id: str, after: str, most: int = _PAGE
) -> list[Said]:
    """Return what a run said after an event id, the oldest first, at most ``most`` events."""
    with connection.translated():
        entries = await connection.client.xrange(
            lane.events(run_id), f"({after}" if after else "-", "+", count=most
        )

    found = []
    place = Place(lane.queue, run_id, "event")
    for entry, fields in entries:
        name, data = codec.decode(opened(connection.sealer, place, fields[b"data"]))
        found.append(Said(entry.decode(), name, data, int(entry.split(b"-")[0]) / 1000))

    return found


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


def _answer(row: Sequence[bytes]) -> End | Pending | Unknown:
    if not row[0]:
        return Unknown()

    state = RunState(row[0].decode())
    return End(state, row[1]) if state in FINAL else Pending()


def _message(data: bytes) -> Message:
    run_id, state, payload = data.split(b"\n", 2)
    if state == b"look":
        return Message(run_id.decode(), None)

    return Message(run_id.decode(), End(RunState(state.decode()), payload))
