"""What other agents said to a run, and who of them wants to be told how it goes on.

To them a run is a task: its state, its result and what it says are the run's. Only what a run's
record does not hold stands here, in one hash a task: the conversation it belongs to, the messages,
who began it, and where notifications are wanted. It lapses by itself, a while after anybody last
asked for it. It does not know the protocol: a message is bytes.

What other agents said, who they are and what they want to show us is sealed like every other value,
for its task and its field. A field is called by a hash of the message's id, which is theirs, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from millstream.store.connection import Connection
from millstream.store.sealing import Place, opened

#: How long a conversation is kept after it was last touched.
KEPT_S = 7 * 86_400
#: Messages that are kept of one task; what is said beyond that is heard, and not kept.
MOST_MESSAGES = 200
#: Bytes of a message that is kept.
MOST_BYTES = 64 * 1024
#: With this begins a field that says where somebody wants to be told; see `store/pushes.py`.
WISH = "p:"
_CONTEXT, _OWNER, _MESSAGE = "context", "owner", "m:"
#: How many bytes of a message's value say when it came; they are never sealed.
_STAMP = 20
_TAG = "millstream:{talk:"


@dataclass(frozen=True, slots=True)
class Subject:
    """Which run it is about."""

    queue: str
    run_id: str

    @property
    def key(self) -> str:
        """Hash, under a tag of its own: a task has one key, and no script touches two."""
        return f"{_TAG}{self.queue}/{self.run_id}}}"

    @classmethod
    def of(cls, key: str) -> Subject:
        """Return what a key of this kind is about."""
        queue, _, run_id = key.partition(_TAG)[2].rpartition("}")[0].partition("/")
        return cls(queue, run_id)

    def place(self, name: str) -> Place:
        """Return where the value of a field belongs."""
        return Place(self.queue, self.run_id, "talk", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is known of a task beside its run."""

    context: str = ""
    #: The principal that began it.
    owner: str = ""
    #: Hashes of their ids, and messages, in the order in which they came.
    messages: Sequence[tuple[str, bytes]] = field(default=())

    def has(self, message_id: str) -> bool:
        """Whether a message was said before."""
        mark = mark_of(message_id)
        return any(known == mark for known, _ in self.messages)


def mark_of(message_id: str) -> str:
    """Return what a message is known by here: a hash of its id."""
    return hashlib.blake2b(message_id.encode(), digest_size=16).hexdigest()


def every_key() -> str:
    """Return the pattern of the keys of all conversations."""
    return f"{_TAG}*"


def may_be_sealed(name: str) -> bool:
    """Whether a field is one of those whose values are sealed where there are keys."""
    return name in {_CONTEXT, _OWNER} or name.startswith((_MESSAGE, WISH))


def parted(name: str, value: bytes) -> tuple[bytes, bytes]:
    """Return what of a field stands in clear always, and what is sealed where there are keys."""
    return (value[:_STAMP], value[_STAMP:]) if name.startswith(_MESSAGE) else (b"", value)


def sealed(connection: Connection, subject: Subject, name: str, data: bytes) -> bytes:
    """Return the value of a field as it is to stand."""
    sealer = connection.sealer
    return data if sealer is None else sealer.seal(subject.place(name), data)


async def begin(connection: Connection, subject: Subject, *, context: str, owner: str) -> None:
    """Note which conversation a task belongs to. Safe to send twice. Raises `StoreError`."""
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for name, value in ((_CONTEXT, context), (_OWNER, owner)):
            pipe.hsetnx(subject.key, name, sealed(connection, subject, name, value.encode()))
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
        name = _MESSAGE + mark_of(message_id)
        kept = sealed(connection, subject, name, message)
        pipe.hsetnx(subject.key, name, b"%020d%b" % (at, kept))
        pipe.expire(subject.key, KEPT_S)
        await pipe.execute()


async def read(connection: Connection, subject: Subject) -> Conversation:
    """Return what is known of a task; nothing, where nothing was said.

    Raises `StoreError`, `SealingError`.
    """
    (found,) = await read_many(connection, [subject])
    return found


async def read_many(connection: Connection, subjects: Sequence[Subject]) -> list[Conversation]:
    """Return what is known of some tasks, in order. Raises `StoreError`, `SealingError`."""
    if not subjects:
        return []
    with connection.translated():
        pipe = connection.client.pipeline(transaction=False)
        for subject in subjects:
            pipe.hgetall(subject.key)
            pipe.expire(subject.key, KEPT_S)
        rows = (await pipe.execute())[::2]
    return [
        _conversation(connection, subject, row) for subject, row in zip(subjects, rows, strict=True)
    ]


def _conversation(
    connection: Connection, subject: Subject, row: dict[bytes, bytes]
) -> Conversation:
    def plain(name: str, value: bytes) -> bytes:
        return opened(connection.sealer, subject.place(name), value)

    fields = {name.decode(): value for name, value in row.items()}
    said = sorted(
        (*parted(name, value), name) for name, value in fields.items() if name.startswith(_MESSAGE)
    )
    return Conversation(
        context=plain(_CONTEXT, fields.get(_CONTEXT, b"")).decode(),
        owner=plain(_OWNER, fields.get(_OWNER, b"")).decode(),
        messages=tuple(
            (name.removeprefix(_MESSAGE), plain(name, message)) for _, message, name in said
        ),
    )
