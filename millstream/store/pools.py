"""Pools: permits that all processes share, and that each has for a short time, some at once.

A pool stands in a slot of its own, beside the lanes. A process says how many permits it keeps and
how many more it wants, in one call that is safe to repeat; what it has lapses unless it speaks
again. Promise: never more permits are out than there are. It does not know what they permit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.store.connection import Connection
from millstream.store.scripts import Argument, call
from millstream.store.subscription import Subscription

#: Stands before the token of a process that waits. A token alone: there is a permit for it.
WAITS = b"+"


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool. Its hash tag is that of no queue."""

    name: str
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = ("pool", "until", "line", "has")
        object.__setattr__(self, "keys", tuple(self._prefix + name for name in names))

    @property
    def _prefix(self) -> str:
        return f"millstream:{{pool:{self.name}}}:"

    @property
    def said(self) -> str:
        """Channel: what whoever waits, or might give something back, has to know."""
        return self._prefix + "said"


@dataclass(frozen=True, slots=True)
class Rate:
    """One rate that all processes share."""

    name: str
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", (f"millstream:{{pool:{self.name}}}:rate",))


class Share(NamedTuple):
    """What a process has of a pool."""

    has: int
    #: How many other processes wait.
    others: int
    #: Until the next lease of anybody runs out.
    lapse_s: float


async def speak(  # noqa: PLR0917 - who, what it has and wants, and what there is
    connection: Connection,
    pool: Pool,
    token: str,
    sequence: int,
    keep: int,
    want: int,
    most: int,
    lease_s: float,
) -> Share | None:
    """Keep some permits and want more; None when a later call was faster. Raises `StoreError`."""
    args: list[Argument] = [token, sequence, keep, want, most, round(lease_s * 1000)]
    with connection.translated():
        found = await call(connection.scripts, "pool", pool, args)
    return None if found is None else Share(found[0], found[1], found[2] / 1000)


async def pace(
    connection: Connection, rate: Rate, count: int, most: int, period_s: float
) -> tuple[float, float]:
    """Reserve times; return how long to wait for the first, and from each to the next.

    Raises `StoreError`.
    """
    args: list[Argument] = [count, most, max(1, round(period_s * 1000))]
    with connection.translated():
        first, step = await call(connection.scripts, "pace", rate, args)
    return float(first) / 1000, float(step) / 1000


def listen(connection: Connection, pool: Pool) -> Subscription:
    """Return what hears of a pool, not opened yet."""
    return Subscription(connection, pool.said)
