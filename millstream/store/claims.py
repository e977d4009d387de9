"""Things that are due, of which each is taken by one process for a while, whoever dies with it.

They stand in one sorted set, by the time when they are due. It does not know what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millstream.store.connection import Connection
from millstream.store.scripts import call

#: How many are claimed at once: what ``lua/claim.lua`` says.
CLAIMED = 20


@dataclass(frozen=True, slots=True)
class Due:
    """Sorted set: what is to be done -> when, in ms."""

    key: str
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", (self.key,))


async def claim(connection: Connection, due: Due, lease_s: float) -> Sequence[bytes]:
    """Take some of what is due, and keep others from it for so long. Raises `StoreError`."""
    with connection.translated():
        found: Sequence[bytes] = await call(
            connection.scripts, "claim", due, [round(lease_s * 1000)]
        )
    return found


async def postpone(connection: Connection, due: Due, thing: str | bytes, seconds: float) -> None:
    """Have a thing taken again in a while, unless it is gone. Raises `StoreError`."""
    with connection.translated():
        now, micros = await connection.client.time()
        when = int(now) * 1000 + int(micros) // 1000 + round(seconds * 1000)
        await connection.client.zadd(due.key, {thing: when}, xx=True)
