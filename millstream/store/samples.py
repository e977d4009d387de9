"""What the leader has measured, for the schedulers that do not lead: one key, written by one.

Promise: a leader that is none any more writes nothing; what is read comes with its age by the clock
of Redis, so that no two machines compare their clocks. It does not judge what is too old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from millstream.errors import StoreError
from millstream.events import QueueSampled
from millstream.store.connection import Connection
from millstream.store.leadership import Seat
from millstream.store.scripts import call

#: How long it stays when nobody writes it any more: a fleet that is gone leaves nothing behind.
_KEEP_MS = 3600 * 1000


class Sample(msgspec.Struct, frozen=True):
    """A reading of a queue, and how old it was when it was published or read, in seconds."""

    reading: QueueSampled
    age_s: float


class _Published(msgspec.Struct, frozen=True):
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class _Keys:
    keys: tuple[str, ...]


async def publish(
    connection: Connection, seat: Seat, token: str, fence: int, samples: Sequence[Sample]
) -> bool:
    """Write what was measured; False when this process does not lead. Raises `StoreError`."""
    data = msgspec.json.encode(_Published(list(samples)))
    keys = _Keys((*seat.keys, _key(seat)))
    with connection.translated():
        answer = await call(connection.scripts, "publish", keys, [token, fence, _KEEP_MS, data])

    return bool(answer)


async def published(connection: Connection, seat: Seat) -> list[Sample]:
    """Read what was measured last; nothing where nobody has published. Raises `StoreError`."""
    with connection.translated():
        answer: Any = await call(connection.scripts, "published", _Keys((_key(seat),)), [])

    if answer is None:
        return []

    age_ms, data = answer
    try:
        found = msgspec.json.decode(data, type=_Published)
    except msgspec.MsgspecError as error:
        # A release of another shape leads; its successor will be of ours, or we of its.
        raise StoreError(f"the published samples cannot be read: {error}") from error

    return [Sample(each.reading, each.age_s + age_ms / 1000) for each in found.samples]


def _key(seat: Seat) -> str:
    (leader,) = seat.keys
    return leader.replace(":leader:", ":samples:", 1)
