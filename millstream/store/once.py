"""Runs that are to happen once, however often they are asked for: in a window, or after a quiet.

What stands for a name stands in one lane, with the run itself, so that both are decided in one
script. A resize may send the name to another lane: then one that was asked for before it and again
after it happens twice.
"""

from __future__ import annotations

from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import Answer, Full, NewRun, Resized, Stands
from millstream.store.scripts import Argument, call

_ACCEPTED, _KNOWN, _OTHER = 1, 0, 2


async def enqueue(connection: Connection, lane: Lane, epoch: int, new: NewRun) -> Answer | Resized:
    """Accept a run, unless another one stands for it: then say which. Raises `StoreError`."""
    once = new.once
    assert once is not None, "a run that may happen any number of times is enqueued with others"
    args: list[Argument] = [
        epoch, once.mode, once.name, round(once.window_s * 1000), round(once.longest_s * 1000),
        new.id, new.workflow, new.version, new.arguments, new.priority,
        "" if new.timeout_s is None else round(new.timeout_s * 1000), new.tenant, new.trace,
        round(new.delay_s * 1000), new.attributes,
    ]  # fmt: skip
    with connection.translated():
        what, *rest = await call(connection.scripts, "once", lane, args)

    if what == -1:
        return Resized(*rest)
    if what == _ACCEPTED:
        return Stands(new.id, True)
    if what == _KNOWN:
        known = rest[0].decode()
        return Stands(known, known == new.id)
    return str(rest[0].decode()) if what == _OTHER else Full(*rest)
