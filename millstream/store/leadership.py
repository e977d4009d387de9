"""Who leads: one seat for all schedulers that serve the same queues.

A term ends by itself unless it is renewed, by the clock of Redis. It is known by the token of the
process and a fence that grows with every election; both must match, since a fence alone can
repeat after a failover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millstream.store.connection import Connection
from millstream.store.scripts import Argument, call


@dataclass(frozen=True, slots=True)
class Seat:
    """What is led. Schedulers with other queues have a seat of their own: nobody stands idle."""

    queues: tuple[str, ...]
    #: What the script is given. The hash tag is not that of any queue.
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = ",".join(sorted(set(self.queues)))
        object.__setattr__(self, "keys", (f"millstream:{{scheduler}}:leader:{names}",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether the candidate leads, and how long the term lasts, whosever it is."""

    leading: bool
    fence: int
    left_s: float


async def seek(connection: Connection, seat: Seat, token: str, lease_s: float) -> Answer:
    """Be elected if the seat is free. Raises `StoreError`."""
    return await _elect(connection, seat, [token, 0, round(lease_s * 1000)])


async def renew(
    connection: Connection, seat: Seat, token: str, fence: int, lease_s: float
) -> Answer:
    """Go on with a term, unless it has ended. Raises `StoreError`."""
    return await _elect(connection, seat, [token, fence, round(lease_s * 1000)])


async def resign(connection: Connection, seat: Seat, token: str) -> None:
    """Leave the seat at once, whatever the term; nothing happens where another sits on it."""
    await _elect(connection, seat, [token, 0, 0])


async def _elect(connection: Connection, seat: Seat, args: Sequence[Argument]) -> Answer:
    with connection.translated():
        leading, fence, left_ms = await call(connection.scripts, "elect", seat, args)

    return Answer(leading=bool(leading), fence=fence, left_s=left_ms / 1000)
