"""The lane's loop while Redis is away, and the lease that says what may be started."""

from __future__ import annotations

import anyio
import pytest

from millstream.errors import StoreUnavailable
from millstream.events import Event, StoreFailed
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_worker.consumer import Consumer
from millstream_worker.lease import Lease
from millstream_worker.slots import Slots

pytestmark = pytest.mark.anyio


class _Away(Connection):
    """A Redis that does not answer, until it does."""

    def __init__(self, failures: int) -> None:
        super().__init__("memory://away")
        self.failures = failures
        execute = self.client.execute_command

        async def refuse(*args: object, **options: object) -> object:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable("memory://away", "it is away")
            return await execute(*args, **options)

        self.client.execute_command = refuse


async def test_every_refusal_is_a_turn_of_the_loop() -> None:
    """However long Redis is away, liveness sees a loop that turns; the outage is told once."""
    turns: list[str] = []
    events: list[Event] = []
    connection = _Away(failures=4)
    consumer = Consumer(
        connection,
        Lane("default"),
        "w1",
        Slots(1),
        Lease(10.0, lambda: 0.0),
        emit=events.append,
        retention_s=1.0,
        alive=lambda: turns.append("alive"),
        answered=lambda refusal: turns.append("refused" if refusal else "served"),
    )
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(consumer.commit_forever)
            sent = consumer.submit([["H", "normal", "1-0", 1000]])
            await sent
            group.cancel_scope.cancel()
    await connection.aclose()
    assert turns.count("refused") >= 3
    assert turns.count("alive") > turns.count("refused")
    assert sum(isinstance(event, StoreFailed) for event in events) == 1


def test_a_lapsed_lease_is_not_trusted_until_what_was_lost_is_known() -> None:
    now = [100.0]
    lane, other = Lane("a"), Lane("b")
    lease = Lease(10.0, lambda: now[0])
    lease.serve(lane)
    lease.serve(other)
    assert not _trusted(lease)
    lease.renewed(100.0, lapsed=False)
    assert _trusted(lease)
    now[0] = 109.5
    assert not _trusted(lease)
    lease.renewed(109.5, lapsed=True)
    assert not _trusted(lease)
    lease.compared(lane, 1)
    assert not _trusted(lease)
    lease.compared(other, 1)
    assert _trusted(lease)


def _trusted(lease: Lease) -> bool:
    # Asked through a function: the type checker takes a property to be the same every time.
    return lease.trusted
