"""The wire: many calls on one connection, each with its own answer, whatever the others do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
import redis.exceptions as refused

from millstream import Client
from millstream.store.connection import Connection
from millstream.store.wire import Wire
from tests.servers import RedisServer


@pytest.fixture
async def wire(redis_server: RedisServer) -> AsyncIterator[Wire]:
    """A wire to a server that answers."""
    redis_server.flush()
    connection = Connection(redis_server.url, command_timeout_s=0.5)
    assert isinstance(connection.scripts, Wire)
    yield connection.scripts
    await connection.aclose()


async def connections(server: RedisServer) -> int:
    """How many connections the server has, this look left out."""
    with server.client() as client:
        return int(client.info("clients")["connected_clients"]) - 1


async def test_a_hundred_calls_share_one_connection(wire: Wire, redis_server: RedisServer) -> None:
    """Each gets its own answer."""
    await wire.execute_command("PING")
    before = await connections(redis_server)
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        answers[number] = await wire.execute_command("ECHO", number)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(ask, number)

    assert answers == {number: str(number).encode() for number in range(100)}
    assert await connections(redis_server) == before


async def test_whoever_gives_up_disturbs_nobody(wire: Wire) -> None:
    """The answer that comes for a call that was cancelled goes to nobody else."""
    with anyio.move_on_after(0.05) as scope:
        await wire.execute_command("BLPOP", "nothing", 0.2)
    assert scope.cancelled_caught

    assert await wire.execute_command("ECHO", "mine") == b"mine"


async def test_an_error_is_the_callers_own(wire: Wire) -> None:
    """It has the class that redis-py gives it; the calls beside it are answered."""
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append(await wire.execute_command("ECHO", "fine"))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with pytest.raises(refused.NoScriptError):
            await wire.execute_command("EVALSHA", "0" * 40, 0)
        group.start_soon(ask)

    assert answers == [b"fine", b"fine"]


async def test_a_silent_server_fails_every_call_and_is_left(
    wire: Wire, redis_server: RedisServer
) -> None:
    """A connection on which an answer is overdue is given up: the next call opens another."""
    await wire.execute_command("PING")
    failed = []

    async def ask() -> None:
        with pytest.raises(refused.TimeoutError) as caught:
            await wire.execute_command("PING")
        failed.append(caught.value)

    redis_server.freeze()
    try:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
    finally:
        redis_server.thaw()

    assert len(failed) == 3
    assert await wire.execute_command("PING") == b"PONG"


async def test_a_connection_that_the_server_closes_is_opened_again(
    wire: Wire, redis_server: RedisServer
) -> None:
    """What was under way fails, since nobody knows whether it was executed."""
    await wire.execute_command("PING")

    async def cut() -> None:
        with redis_server.client() as client:
            while not client.info("clients")["blocked_clients"]:
                await anyio.lowlevel.checkpoint()
            client.client_kill_filter(_type="normal", skipme=True)

    async with anyio.create_task_group() as group:
        group.start_soon(cut)
        with pytest.raises(refused.ConnectionError):
            await wire.execute_command("BLPOP", "nothing", 5)

    assert await wire.execute_command("PING") == b"PONG"


async def test_a_server_that_was_demoted_is_left(redis_server: RedisServer) -> None:
    """It stays connected and refuses: another connection may lead to the new master."""
    with RedisServer() as server:
        connection = Connection(server.url)
        wire = connection.scripts
        await wire.execute_command("SET", "a", "1")
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", redis_server.port)
            before = client.info("stats")["total_connections_received"]
        with pytest.raises(refused.ReadOnlyError):
            await wire.execute_command("SET", "a", "2")
        await wire.execute_command("PING")
        with server.client() as client:
            # This look's own connection, and the one that the wire opened anew.
            assert client.info("stats")["total_connections_received"] == before + 2
        await connection.aclose()


async def test_large_answers_and_questions_arrive_whole(wire: Wire) -> None:
    """They come in many pieces."""
    value = bytes(range(256)) * 40_000
    await wire.execute_command("SET", "large", value)

    assert await wire.execute_command("GET", "large") == value


async def test_who_waits_for_a_connection_shares_its_failure() -> None:
    """A server that accepts and says nothing is tried once for all who wait, not once for each."""
    tried = 0

    async def opens() -> object:
        nonlocal tried
        tried += 1
        await anyio.lowlevel.checkpoint()
        raise refused.TimeoutError("nobody says anything")

    silent = Wire(opens, 1.0, passes=lambda _: False)

    async def ask() -> None:
        with pytest.raises(refused.TimeoutError):
            await silent.execute_command("PING")

    for times in (1, 2):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
        assert tried == times


async def test_a_wire_that_was_closed_opens_nothing_any_more(
    wire: Wire, redis_server: RedisServer
) -> None:
    """Whoever comes late would leave a connection behind that nobody closes."""
    before = await connections(redis_server)
    await wire.execute_command("PING")
    await wire.aclose()

    with pytest.raises(refused.ConnectionError, match="closed by its owner"):
        await wire.execute_command("PING")

    await _until_connections(redis_server, before)


async def test_a_connection_that_opens_while_the_wire_is_closed_is_closed_too(
    redis_server: RedisServer,
) -> None:
    """Nobody would know of it."""
    before = await connections(redis_server)
    connection = Connection(redis_server.url)
    opening, closed = anyio.Event(), anyio.Event()

    async def opens() -> object:
        opened = connection.client.connection_pool.make_connection()
        await opened.connect()
        opening.set()
        await closed.wait()
        return opened

    wire = Wire(opens, 1.0, passes=lambda _: False)

    async def late() -> None:
        with pytest.raises(refused.ConnectionError, match="closed by its owner"):
            await wire.execute_command("PING")

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        group.start_soon(late)  # waits for the same attempt
        await opening.wait()
        await wire.aclose()
        closed.set()

    await _until_connections(redis_server, before)
    await connection.aclose()


async def test_a_client_may_be_opened_again(redis_server: RedisServer) -> None:
    """Closing is for good for whoever is late, not for whoever comes back."""
    redis_server.flush()
    before = await connections(redis_server)
    client = Client(redis_server.url)
    for _ in range(2):
        async with client:
            await client.enqueue("flow")
    async with client:
        assert (await client.depth()).waiting == 2

    await _until_connections(redis_server, before)


async def _until_connections(server: RedisServer, count: int) -> None:
    """The server hears of a closed connection a moment later."""
    with anyio.fail_after(10):
        while await connections(server) != count:
            await anyio.sleep(0.005)
