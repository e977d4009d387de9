"""How whoever waits learns the end of a run: one subscription a lane, however many runs.

A message is a hint. The truth is the run's record, read before waiting and again from time to
time, so that a lost message costs a pause and never an answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from millstream.model.limits import LIMITS
from millstream.model.run import FINAL, RunState
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.scripts import call
from millstream.store.subscription import Subscription


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    state: RunState
    #: The encoded result, or the encoded error; as it is stored, sealed perhaps.
    payload: bytes


@dataclass(frozen=True, slots=True)
class Pending:
    """The run goes on; its end will be published to the inbox."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no such run."""


@dataclass(frozen=True, slots=True)
class Message:
    """Something was published: a run ended. ``end`` is None when it was too large to publish."""

    run_id: str
    end: End | None


async def watch(
    connection: Connection, lane: Lane, inbox: str, ids: Sequence[str]
) -> list[End | Pending | Unknown]:
    """Read how runs ended, and ask to be told of those that have not. Raises `StoreError`."""
    with connection.translated():
        answers = await call(connection.scripts, "watch", lane, [inbox, LIMITS.waiters, *ids])

    return [_answer(row) for row in answers]


class Inbox(Subscription):
    """The channel of one client in one lane."""

    def __init__(self, connection: Connection, lane: Lane, name: str) -> None:
        super().__init__(connection, lane.inbox(name))

    async def messages(self, pause_s: float) -> AsyncIterator[Message | None]:
        """Yield messages; None when nothing came for ``pause_s``. Raises `StoreError`."""
        while True:
            data = await self.next(pause_s)
            yield None if data is None else _message(data)


def _answer(row: Sequence[bytes]) -> End | Pending | Unknown:
    if not row[0]:
        return Unknown()

    state = RunState(row[0].decode())
    return End(state, row[1]) if state in FINAL else Pending()


def _message(data: bytes) -> Message:
    run_id, state, payload = data.split(b"\n", 2)
    if state == b"look":
        return Message(run_id.decode(), None)

    return Message(run_id.decode(), End(RunState(state.decode()), payload))
