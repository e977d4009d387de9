"""Who wants to be told how a task goes on, and how far they were told.

A wish stands with the task's conversation; that there is something to do for it stands in one
sorted set, from which any gateway takes what is due. A gateway that dies leaves it to be taken
again: so everybody is told at least once. It does not know what is told, nor how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from millstream.errors import UsageError
from millstream.store import claims
from millstream.store.claims import Due
from millstream.store.connection import Connection
from millstream.store.conversations import KEPT_S, WISH, Subject, sealed
from millstream.store.sealing import opened

#: Wishes about one task.
MOST = 20
_PROGRESS = "q:"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Where notifications are wanted, and how we show there who we are."""

    id: str
    url: str
    token: str = ""
    scheme: str = ""
    credentials: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far somebody was told."""

    #: The last event, the last state, and what was asked in it.
    after: str = ""
    state: int = 0
    asks: tuple[str, ...] = ()
    #: Whether any artifact was told.
    brought: bool = False
    #: How often in a row it could not be delivered.
    failures: int = 0
    #: Looks in a row that found nothing to tell.
    idle: int = 0


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to be looked after: a wish about a task."""

    subject: Subject
    wish_id: str

    @property
    def member(self) -> str:
        """How it stands in the set of what is due."""
        return f"{self.subject.queue}/{self.subject.run_id}\n{self.wish_id}"

    @classmethod
    def of(cls, member: str) -> Errand:
        """Return the errand that a member is."""
        task, _, wish_id = member.partition("\n")
        queue, _, run_id = task.partition("/")
        return cls(Subject(queue, run_id), wish_id)


#: Sorted set: what is to be done -> when, in ms.
DUE = "millstream:{pushes}:due"


_DUE = Due(DUE)


async def put(connection: Connection, subject: Subject, wish: Wish, progress: Progress) -> None:
    """Keep a wish, and see to it from now on. Safe to send twice. Raises `UsageError` if full."""
    name = f"{WISH}{wish.id}"
    kept = sealed(connection, subject, name, msgspec.json.encode(wish))
    with connection.translated():
        wishes = await every(connection, subject)
        if len(wishes) >= MOST and all(known.id != wish.id for known in wishes):
            raise UsageError(f"a task has at most {MOST} push notification configs; delete one")
        pipe = connection.client.pipeline(transaction=False)
        pipe.hset(subject.key, name, kept)
        pipe.hsetnx(subject.key, f"{_PROGRESS}{wish.id}", msgspec.json.encode(progress))
        pipe.expire(subject.key, KEPT_S)
        await pipe.execute()
        await connection.client.zadd(DUE, {Errand(subject, wish.id).member: 0})


def errands(key: str, row: Mapping[bytes, bytes]) -> list[Errand]:
    """Return what is to be looked after for what stands under the key of a task."""
    wishes = [name.decode() for name in row if name.startswith(WISH.encode())]
    return [Errand(Subject.of(key), name.removeprefix(WISH)) for name in wishes]


async def every(connection: Connection, subject: Subject) -> list[Wish]:
    """Return the wishes about a task, by their ids. Raises `StoreError`, `SealingError`."""
    with connection.translated():
        row = await connection.client.hgetall(subject.key)
    found = [
        _wish(connection, subject, name.decode(), value)
        for name, value in row.items()
        if name.startswith(WISH.encode())
    ]
    return sorted(found, key=lambda wish: wish.id)


async def read(connection: Connection, errand: Errand) -> tuple[Wish, Progress] | None:
    """Return a wish and how far it is; None when it is gone.

    Raises `StoreError`, `SealingError`.
    """
    names = [f"{WISH}{errand.wish_id}", f"{_PROGRESS}{errand.wish_id}"]
    with connection.translated():
        wish, progress = await connection.client.hmget(errand.subject.key, names)
    if wish is None:
        return None
    known = Progress() if progress is None else msgspec.json.decode(progress, type=Progress)
    return _wish(connection, errand.subject, names[0], wish), known


async def drop(connection: Connection, errand: Errand) -> None:
    """Forget a wish. Safe to send twice. Raises `StoreError`."""
    names = [f"{WISH}{errand.wish_id}", f"{_PROGRESS}{errand.wish_id}"]
    with connection.translated():
        await connection.client.hdel(errand.subject.key, *names)
        await connection.client.zrem(DUE, errand.member)


def _wish(connection: Connection, subject: Subject, name: str, data: bytes) -> Wish:
    plain = opened(connection.sealer, subject.place(name), data)
    return msgspec.json.decode(plain, type=Wish)


# -- what is due -------------------------------------------------------------------------------


async def claim(connection: Connection, lease_s: float) -> Sequence[Errand]:
    """Take some of what is due, and keep others from it for so long. Raises `StoreError`."""
    found = await claims.claim(connection, _DUE, lease_s)
    return [Errand.of(member.decode()) for member in found]


async def proceed(connection: Connection, errand: Errand, progress: Progress) -> None:
    """Write down how far somebody was told. Raises `StoreError`."""
    with connection.translated():
        data = msgspec.json.encode(progress)
        pipe = connection.client.pipeline(transaction=False)
        pipe.hset(errand.subject.key, f"{_PROGRESS}{errand.wish_id}", data)
        pipe.expire(errand.subject.key, KEPT_S)
        await pipe.execute()


async def postpone(connection: Connection, errand: Errand, seconds: float) -> None:
    """Have an errand looked after again in a while, unless it is gone. Raises `StoreError`."""
    await claims.postpone(connection, _DUE, errand.member, seconds)


async def finish(connection: Connection, errand: Errand) -> None:
    """Look after an errand no more. Raises `StoreError`."""
    with connection.translated():
        await connection.client.zrem(DUE, errand.member)
