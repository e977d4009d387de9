"""What other agents said to a run, and who of them wants to be told how it goes on.

To them a run is a task: its state, its result and what it says are the run's. Only what a run's
record does not hold stands here, in one hash a task: the conversation it belongs to, the messages,
who began it, and where notifications are wanted. It lapses by itself, a while after anybody last
asked for it. It does not know the protocol: a message is bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millstream.store.connection import Connection

#: How long a conversation is kept after it was last touched.
KEPT_S = 7 * 86_400
#: Messages that are kept of one task; what is said beyond that is heard, and not kept.
MOST_MESSAGES = 200
#: Bytes of a message that is kept.
MOST_BYTES = 64 * 1024
_CONTEXT, _OWNER, _MESSAGE = "context", "owner", "m:"


@dataclass(frozen=True, slots=True)
class Subject:
    """Which run it is about."""

    queue: str
    run_id: str

    @property
    def key(self) -> str:
        """Hash, under a tag of its own: a task has one key, and no script touches two."""
        return f"millstream:{{talk:{self.queue}/{self.run_id}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is known of a task beside its run."""

    context: str = ""
    #: The principal that began it.
    owner: str = ""
    #: Ids and messages, in the order in which they came.
    messages: Sequence[tuple[str, bytes]] = field(default=())

    def has(self, message_id: str) -> bool:
        """Whether a message was said before."""
        return any(known == message_id for known, _ in self.messages)


async def begin(connection: Connection, subject: Subject, *, context: str, owner: str) -> None:
    """Note which conversation a task belongs to. Safe to send twice. Raises `StoreError`."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        pipe.hsetnx(subject.key, _CONTEXT, context)
        pipe.hsetnx(subject.key, _OWNER, owner)
        pipe.expire(subject.key, KEPT_S)
        await pipe.execute()


async def add(connection: Connection, subject: Subject, message_id: str, message: bytes) -> None:
    """Keep a message, unless it is kept already or there are too many. Raises `StoreError`."""
    with connection.translated():
        count = await connection.client.hlen(subject.key)
        if len(message) > MOST_BYTES or count >= MOST_MESSAGES:
            return
        seconds, micros = await connection.client.time()
        at = int(seconds) * 1_000_000 + int(micros)
        pipe = connection.client.pipeline(transaction=False)
        pipe.hsetnx(subject.key, _MESSAGE + message_id, b"%020d%b" % (at, message))
        pipe.expire(subject.key, KEPT_S)
        await pipe.execute()


async def read(connection: Connection, subject: Subject) -> Conversation:
    """Return what is known of a task; nothing, where nothing was said. Raises `StoreError`."""
    (found,) = await read_many(connection, [subject])
    return found


async def read_many(connection: Connection, subjects: Sequence[Subject]) -> list[Conversation]:
    """Return what is known of some tasks, in order. Raises `StoreError`."""
    if not subjects:
        return []
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for subject in subjects:
            pipe.hgetall(subject.key)
            pipe.expire(subject.key, KEPT_S)
        rows = (await pipe.execute())[::2]
    return [_conversation(row) for row in rows]


def _conversation(row: dict[bytes, bytes]) -> Conversation:
    mark = _MESSAGE.encode()
    said = sorted(
        (value[:20], name[len(mark) :].decode(), value[20:])
        for name, value in row.items()
        if name.startswith(mark)
    )
    return Conversation(
        context=row.get(_CONTEXT.encode(), b"").decode(),
        owner=row.get(_OWNER.encode(), b"").decode(),
        messages=tuple((message_id, message) for _, message_id, message in said),
    )
