"""How many runs a queue may hold that nobody has begun: at the limit it accepts no more.

The limit stands in every lane, where `enqueue` reads it with what it reads anyway, and each lane
takes its part. What counts is what waits: queued or scheduled, retries with the rest. What is in
the hands of a worker does not, nor what is parked. Children of runs, runs that are started once
more and forks are always accepted: who waits for them would wait for ever.
"""

from __future__ import annotations

from millstream.errors import UsageError
from millstream.store import layouts
from millstream.store.connection import Connection
from millstream.store.keys import Lane

_FIELD = "depth"


async def limit(connection: Connection, queue: str, depth: int | None) -> None:
    """Set the limit of a queue; None: it has none. Safe to say twice.

    Raises `StoreError`, and `UsageError` when it is no positive number.
    """
    if depth is not None and depth < 1:
        raise UsageError(f"a queue's depth limit is 1 or more, or none at all, not {depth}")

    while True:
        # A resize that was cut off would bring lanes that know nothing of it.
        layout = await layouts.agreed(connection, queue)
        for number in reversed(range(layout.width)):
            meta = Lane(queue, number).meta
            with connection.translated():
                if depth is None:
                    await connection.client.hdel(meta, _FIELD)
                else:
                    await connection.client.hset(meta, _FIELD, str(depth))
        if (await layouts.agreed(connection, queue)).epoch == layout.epoch:
            return
