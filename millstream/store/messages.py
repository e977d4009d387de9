"""Messages to runs: kept in order with the run they are for, until it asks for them.

A message is written once, however often it is sent, and taken once: `commits.look` takes it away
in the very script that writes it into the journal. Whoever holds the run is told by a hint; one
that is lost is made up for by the next sweep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from millstream.errors import KeyOccupied, StoreError
from millstream.model.journal import Record
from millstream.model.limits import LIMITS, Limits
from millstream.model.message import CHILDREN
from millstream.store import records
from millstream.store.connection import Connection
from millstream.store.foreign import is_foreign
from millstream.store.keys import Lane
from millstream.store.scripts import Argument, call
from millstream.store.sealing import Place
from millstream.store.subscription import Subscription

#: Fields of a hash that are looked at in one step.
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that is sent to a run. The id says which it is when it is sent again."""

    run_id: str
    #: As it is stored, see `millstream.model.message`.
    name: str
    payload: bytes
    id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What waits for a run: the names, and the number of the last message that was looked at."""

    heard: int = 0
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Hint:
    """A message has come for a run that this process holds."""

    run_id: str
    name: str


async def send(
    connection: Connection,
    lane: Lane,
    messages: Sequence[Message],
    retention_s: float,
    limits: Limits = LIMITS,
) -> list[str]:
    """Send messages. Per message: kept, known, full, occupied, the state it ended in, or ''."""
    args: list[Argument] = [
        round(retention_s * 1000), limits.messages, limits.message_bytes, limits.message_ids,
    ]  # fmt: skip
    for message in messages:
        args += (message.run_id, message.name, _sealed(connection, lane, message), message.id)

    with connection.translated():
        answers = await call(connection.scripts, "signal", lane, args)

    return [answer.decode() for answer in answers]


async def standing(connection: Connection, lane: Lane, run_id: str) -> Standing:
    """Return what waits for a run. Raises `StoreError`, or `KeyOccupied`."""
    key = lane.received(run_id)
    names: set[str] = set()
    cursor = 0
    with connection.translated():
        # First: what comes while the names are read counts as not yet heard of.
        try:
            heard = await connection.client.hget(key, "#")
        except ResponseError as error:
            if is_foreign(error):
                raise KeyOccupied(run_id, "mailbox") from error
            raise
        while heard:
            cursor, page = await connection.client.hscan(key, cursor, match="~*", count=_PAGE)
            names.update(name[1:].decode() for name in page)
            if not cursor:
                break

    return Standing(int(heard or 0), frozenset(names))


async def taken(connection: Connection, lane: Lane, run_id: str, key: str) -> Record:
    """Return the record under which a message was written into the journal."""
    with connection.translated():
        data: bytes | None = await connection.client.hget(lane.journal(run_id), key)
    if data is None:
        raise StoreError(f"Redis has lost the record of step {key!r} of run {run_id!r}")

    return records.decode(connection.sealer, lane.queue, run_id, key, data)


async def record(connection: Connection, lane: Lane, run_id: str, key: str) -> bytes | None:
    """Return one record of a run as it is stored in clear; None when there is none."""
    with connection.translated():
        data: bytes | None = await connection.client.hget(lane.journal(run_id), key)
    if data is None:
        return None

    found = records.decode(connection.sealer, lane.queue, run_id, key, data)
    return records.plain(found) if found.sealed else data


def _sealed(connection: Connection, lane: Lane, message: Message) -> bytes:
    """Return the payload as it is stored. The end of a child comes sealed by the child."""
    if connection.sealer is None or message.name.partition(":")[0] == CHILDREN:
        return message.payload

    place = Place(lane.queue, message.run_id, "message", message.name)
    return connection.sealer.seal(place, message.payload)


class Hints(Subscription):
    """The channel on which one process is told of messages to the runs that it holds."""

    def __init__(self, connection: Connection, lane: Lane, token: str) -> None:
        super().__init__(connection, lane.inbox(token))

    async def heard(self, pause_s: float) -> AsyncIterator[Hint | None]:
        """Yield hints; None when nothing came for ``pause_s``. Raises `StoreError`."""
        while True:
            data = await self.next(pause_s)
            yield None if data is None else _hint(data)


def _hint(data: bytes) -> Hint:
    run_id, name = data.decode().split("\n", 1)
    return Hint(run_id, name)
