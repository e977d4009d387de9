"""Pause a queue: its workers take nothing new, and go on with what they hold.

Every lane says so for itself, where the sweep that workers send anyway finds it: within a second
they know, and nothing is asked for it. Enqueueing, timers and recovery go on; runs wait.
"""

from __future__ import annotations

from millstream.store import layouts
from millstream.store.connection import Connection
from millstream.store.keys import Lane

_FIELD = "paused"


async def pause(connection: Connection, queue: str) -> bool:
    """Pause a queue; whether that is new. Safe to say twice. Raises `StoreError`."""
    changed = False
    while True:
        # A resize that was cut off would bring lanes that know nothing of it.
        layout = await layouts.agreed(connection, queue)
        for number in reversed(range(layout.width)):
            with connection.translated():
                set_ = await connection.client.hset(Lane(queue, number).meta, _FIELD, "1")
            changed = changed or bool(set_)
        if (await layouts.agreed(connection, queue)).epoch == layout.epoch:
            return changed


async def resume(connection: Connection, queue: str) -> bool:
    """Let a queue go on; whether it was paused. Safe to say twice. Raises `StoreError`."""
    changed = False
    layout = await layouts.agreed(connection, queue)
    for number in reversed(range(layout.width)):
        with connection.translated():
            gone = await connection.client.hdel(Lane(queue, number).meta, _FIELD)
        changed = changed or bool(gone)
    return changed
