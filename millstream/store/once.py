"""Runs that are to happen once, however often they are asked for: in a window, or after a quiet.

What stands for a name stands in one lane, with the run itself, so that both are decided in one
script. A resize may send the name to another lane: then one that was asked for before it and again
after it happens twice.
"""

from __future__ import annotations

from typing import NamedTuple

from millstream.errors import StoreError
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.runs import Answer, Full, NewRun, Resized, Stands, place_of_arguments
from millstream.store.scripts import Argument, call

_ACCEPTED, _KNOWN, _OTHER, _BOUND = 1, 0, 2, 4
_TRIES = 10


class _Bound(NamedTuple):
    """The run for which the arguments have to be sealed."""

    id: str


async def enqueue(connection: Connection, lane: Lane, epoch: int, new: NewRun) -> Answer | Resized:
    """Accept a run, unless another one stands for it: then say which. Raises `StoreError`.

    What is sealed is sealed for one run, and the script says when that is another one.
    """
    run_id = new.id
    for _ in range(_TRIES):
        answer = await _enqueue(connection, lane, epoch, new, run_id)
        if not isinstance(answer, _Bound):
            return answer
        run_id = answer.id
    raise StoreError("what is to happen once is asked for by others all the time; try again")


async def _enqueue(
    connection: Connection, lane: Lane, epoch: int, new: NewRun, run_id: str
) -> Answer | Resized | _Bound:
    once, given, bound = new.once, new.arguments, ""
    if connection.sealer is not None:
        given, bound = connection.sealer.seal(place_of_arguments(lane, run_id), given), run_id
    assert once is not None, "a run that may happen any number of times is enqueued with others"
    args: list[Argument] = [
        epoch, once.mode, once.name, round(once.window_s * 1000), round(once.longest_s * 1000),
        new.id, new.workflow, new.version, given, new.priority,
        "" if new.timeout_s is None else round(new.timeout_s * 1000), new.tenant, new.trace,
        round(new.delay_s * 1000), new.attributes, bound,
    ]  # fmt: skip
    with connection.translated():
        what, *rest = await call(connection.scripts, "once", lane, args)

    if what == -1:
        return Resized(*rest)
    if what == _BOUND:
        return _Bound(rest[0].decode())
    if what == _ACCEPTED:
        return Stands(new.id, True)
    if what == _KNOWN:
        known = rest[0].decode()
        return Stands(known, known == new.id)
    return str(rest[0].decode()) if what == _OTHER else Full(*rest)
