"""Tasks that other agents do for runs which have ended: who is to be told to stop.

That there is something to do stands in one sorted set for each queue, from which any of its workers
takes what is due; one that dies leaves it to be taken again. So each agent is told at least once,
unless nobody succeeds as often as is tried. It does not know how an agent is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from millstream.store import claims
from millstream.store.claims import Due
from millstream.store.connection import Connection

#: What nobody looks after any more goes, a day after the last was added.
KEPT_S = 24 * 3600


class Task(msgspec.Struct, frozen=True, array_like=True):
    """What an agent does for a step, as it is noted beside the run's messages."""

    agent: str
    #: Its name for it; empty as long as that is not known: then it is found by the conversation.
    task: str
    context: str


class Withdrawal(msgspec.Struct, frozen=True, array_like=True):
    """A task that nobody waits for any more."""

    run_id: str
    task: Task


@dataclass(frozen=True, slots=True)
class _Book:
    """Where the withdrawals of a queue stand. Its hash tag is that of no lane."""

    queue: str

    @property
    def due(self) -> Due:
        """Sorted set: withdrawal -> when it is to be tried, in ms."""
        return Due(f"millstream:{{withdrawals}}:{self.queue}:due")

    @property
    def tried(self) -> str:
        """Hash: withdrawal -> how often it was tried in vain."""
        return f"millstream:{{withdrawals}}:{self.queue}:tried"


def noted(task: Task) -> bytes:
    """Return a task as it is noted."""
    return msgspec.json.encode(task)


def left(run_id: str, note: bytes) -> Withdrawal | None:
    """Return the withdrawal of a task as it was noted; None of what is no note of ours."""
    try:
        return Withdrawal(run_id, msgspec.json.decode(note, type=Task))
    except (msgspec.MsgspecError, UnicodeError):
        return None


async def put(connection: Connection, queue: str, withdrawals: Iterable[Withdrawal]) -> None:
    """Have tasks withdrawn. Safe to send twice. Raises `StoreError`."""
    book = _Book(queue)
    members = {msgspec.json.encode(each): 0 for each in withdrawals}
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.zadd(book.due.key, members, nx=True)
        pipe.expire(book.due.key, KEPT_S)
        await pipe.execute()


async def claim(connection: Connection, queue: str, lease_s: float) -> Sequence[Withdrawal]:
    """Take some of what is due, and keep others from it for so long. Raises `StoreError`.

    What cannot be read here is passed over: a worker of another release may know it.
    """
    found = map(_read, await claims.claim(connection, _Book(queue).due, lease_s))
    return [withdrawal for withdrawal in found if withdrawal is not None]


async def tried(connection: Connection, queue: str, withdrawal: Withdrawal) -> int:
    """Count a withdrawal that was tried in vain; return how often it was. Raises `StoreError`."""
    book = _Book(queue)
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.hincrby(book.tried, msgspec.json.encode(withdrawal).decode(), 1)
        pipe.expire(book.tried, KEPT_S)
        count, _ = await pipe.execute()
    return int(count)


async def postpone(
    connection: Connection, queue: str, withdrawal: Withdrawal, seconds: float
) -> None:
    """Have it tried again in a while, unless it is gone. Raises `StoreError`."""
    member = msgspec.json.encode(withdrawal)
    await claims.postpone(connection, _Book(queue).due, member, seconds)


async def finish(connection: Connection, queue: str, withdrawal: Withdrawal) -> None:
    """Look after it no more. Raises `StoreError`."""
    book, member = _Book(queue), msgspec.json.encode(withdrawal)
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.zrem(book.due.key, member)
        pipe.hdel(book.tried, member.decode())
        await pipe.execute()


def _read(member: bytes) -> Withdrawal | None:
    try:
        return msgspec.json.decode(member, type=Withdrawal)
    except (msgspec.MsgspecError, UnicodeError):
        return None
