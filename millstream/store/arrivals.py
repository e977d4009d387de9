"""Wait for work, and begin to hold it, in one round trip.

    XREADGROUP BLOCK   ->   commit        two commands in one packet: the server executes the second
                                          one the moment the first has brought something

A lane that has run dry is read by a command that blocks. What that brings is delivered, and only a
script can take it under a fence. Sent when the delivery has come, the script would cost an idle
worker another way to the server and back before it begins.

Promise: nothing rests on the two being executed together. What was brought and not taken is told
as a stray, to be adopted by a commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from millstream.model.run import Delivery
from millstream.store import commits, deliveries
from millstream.store.connection import Connection
from millstream.store.deliveries import Stray
from millstream.store.keys import Lane
from millstream.store.scripts import call_behind

_NOTHING_BEFORE = "0-0"


class Arrival(NamedTuple):
    """What came: runs that are held now, and deliveries that are not held yet."""

    taken: Sequence[Delivery]
    strays: Sequence[Stray]
    #: The time by the clock of Redis; None where it was not told.
    now: float | None = None


async def wait(
    connection: Connection,
    client: Any,
    lane: Lane,
    token: str,
    block_s: float,
    *,
    after: Mapping[str, str],
    suspect: bool = True,
    canary: bool = False,
) -> Arrival:
    """Wait until work arrives, at most ``block_s``, and hold it. See `blocking_read`.

    ``client`` is one of its own: the connection is blocked meanwhile.
    ``after`` has the entry of each level that was delivered last: what comes is behind it. A hint:
    with an older one something may come as a stray. Raises `StoreError`.
    """
    read, level_of = deliveries.blocking_read(lane, token, block_s, suspect, canary)
    items = [commits.brought(x, after.get(x, _NOTHING_BEFORE)) for x in level_of.values()]
    with connection.translated():
        found, committed = await call_behind(
            client, read, connection.scripts, "commit", lane, commits.arguments(token, items)
        )

    strays = await deliveries.delivered(connection, found, level_of)
    if committed is None:
        return Arrival((), strays)
    reply = commits.reply_of(committed)
    held = {(x.level, x.entry) for x in reply.taken}
    return Arrival(reply.taken, [x for x in strays if (x.level, x.entry) not in held], reply.now)
