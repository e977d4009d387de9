"""What was lost on the way: entries whose run is gone, and runs that stand in no stream.

The fast path pays for none of this. A lane is walked in pages, each in one script that decides
and acts at once, so that any number of walkers do no harm to each other or to a healthy run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from millstream.store.addresses import StoreKind
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import Argument, call

#: Where a walk along a stream begins.
BEGINNING = "-"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was dropped from a stretch of a stream, and where the next one begins."""

    dropped: int
    last: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs of a lane; ``cursor`` leads to the next ones, and is 0 after the last."""

    ids: tuple[str, ...]
    cursor: int


async def prune(connection: Connection, lane: Lane, level: str, after: str, count: int) -> Pruned:
    """Drop entries whose run has ended or has no record. Raises `StoreError`."""
    with connection.translated():
        dropped, last = await call(connection.scripts, "prune", lane, [level, after, count])

    return Pruned(dropped, last.decode() or BEGINNING)


async def page(connection: Connection, lane: Lane, cursor: int, count: int) -> Page:
    """Look at about ``count`` keys; return the runs of the lane among them. Raises `StoreError`."""
    client: Any = connection.client
    options: dict[str, Any] = {"match": lane.run("*"), "count": count}
    with connection.translated():
        if connection.address.kind is StoreKind.CLUSTER:
            await client.initialize()
            options["target_nodes"] = client.get_node_from_key(lane.meta)
        after, keys = await client.scan(cursor, **options)

    # A cluster names the node along with the cursor.
    after = next(iter(after.values()), 0) if isinstance(after, dict) else after
    start = len(lane.run(""))
    return Page(tuple(key[start:].decode() for key in keys), int(after))


async def restore(
    connection: Connection, lane: Lane, ids: Sequence[str], lease_s: float, retention_s: float
) -> int:
    """Put back those of these runs that stand nowhere; return how many. Raises `StoreError`."""
    args: list[Argument] = [round(lease_s * 1000), round(retention_s * 1000), *ids]
    with connection.translated():
        restored: int = await call(connection.scripts, "restore", lane, args)

    return restored
