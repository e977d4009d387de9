"""The ear: what is published on a channel, one message after the other, until it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
import redis.exceptions as refused

from millstream.errors import StoreUnavailable
from millstream.store.connection import Connection
from millstream.store.ear import Ear
from millstream.store.subscription import Subscription
from tests.servers import RedisServer

CHANNEL = "millstream:{q:0}:inbox:me"


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[Connection]:
    """A connection to a server on which nobody listens yet."""
    redis_server.flush()
    connection = Connection(redis_server.url, command_timeout_s=0.5)
    yield connection
    await connection.aclose()


@pytest.fixture
async def ear(connection: Connection) -> AsyncIterator[Ear]:
    """An ear on the channel."""
    ear = await connection.new_ear()
    assert ear is not None
    await ear.subscribe(CHANNEL, 5)
    yield ear
    ear.close()


async def test_messages_come_in_order_also_while_nobody_listens(
    ear: Ear, redis_server: RedisServer
) -> None:
    """What comes between two looks is kept."""
    with redis_server.client() as client:
        for number in range(100):
            assert client.publish(CHANNEL, f"{number}") == 1

    with anyio.fail_after(5):
        heard = [await ear.next(5) for _ in range(100)]
    assert heard == [str(number).encode() for number in range(100)]


async def test_a_pause_is_told(ear: Ear) -> None:
    """Whoever listens looks at what is stored now and then."""
    assert await ear.next(0.01) is None


async def test_whoever_stops_listening_loses_nothing(ear: Ear, redis_server: RedisServer) -> None:
    """A message that comes to nobody is there for the next look."""
    with anyio.move_on_after(0.01) as scope:
        await ear.next(5)
    assert scope.cancelled_caught
    with redis_server.client() as client:
        client.publish(CHANNEL, "later")
    assert await ear.next(5) == b"later"


async def test_the_end_of_the_connection_is_told_to_who_listens(
    connection: Connection, redis_server: RedisServer
) -> None:
    """Then the channel is subscribed to anew; what was heard before it comes first."""
    subscription = Subscription(connection, CHANNEL)
    await subscription.open()
    with redis_server.client() as client:
        client.publish(CHANNEL, "last words")
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    assert await subscription.next(5) == b"last words"
    with pytest.raises(StoreUnavailable, match="closed"):
        await subscription.next(5)
    await subscription.aclose()


async def test_what_was_closed_says_so(connection: Connection) -> None:
    """Nobody waits for a message that cannot come."""
    subscription = Subscription(connection, CHANNEL)
    await subscription.open()
    await subscription.aclose()
    with pytest.raises(StoreUnavailable, match="by its owner"):
        await subscription.next(5)


async def test_a_server_that_does_not_answer_is_not_waited_for(
    connection: Connection, redis_server: RedisServer
) -> None:
    """A subscription that nobody confirms does not stand."""
    ear = await connection.new_ear()
    assert ear is not None
    redis_server.freeze()
    try:
        with pytest.raises(refused.TimeoutError, match="no answer"):
            await ear.subscribe(CHANNEL, 0.05)
    finally:
        redis_server.thaw()
        ear.close()


async def test_a_refusal_is_raised(connection: Connection, redis_server: RedisServer) -> None:
    """A user may be allowed to write, and not to listen."""
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels")
    ear = await connection.new_ear()
    assert ear is not None
    try:
        with pytest.raises(refused.NoPermissionError):
            await ear.subscribe(CHANNEL, 5)
    finally:
        ear.close()
        with redis_server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "allchannels")
