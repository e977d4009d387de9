"""What every test may ask for: an event loop, servers of its own, and a store of each kind."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from millstream.store.connection import Connection
from tests.servers import RedisServer

_names = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Async tests need no marker: anyio runs them all."""
    config.option.anyio_mode = "auto"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of all async tests."""
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis shared by the tests of this process: flush it before use, do not kill it."""
    yield from _server("redis-server")


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """A Valkey shared by the tests of this process: flush it before use, do not kill it."""
    yield from _server("valkey-server")


@pytest.fixture
def memory_url() -> str:
    """The address of an in-memory store that no other test uses."""
    return f"memory://test-{next(_names)}"


@pytest.fixture(params=["memory", "redis", "valkey"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty store, of each kind in turn."""
    if request.param == "memory":
        return f"memory://test-{next(_names)}"

    server: RedisServer = request.getfixturevalue(f"{request.param}_server")
    server.flush()
    return server.url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Connection]:
    """An open connection to an empty store, of each kind in turn."""
    connection = Connection(store_url)
    yield connection
    await connection.aclose()


def _server(program: str) -> Iterator[RedisServer]:
    if not RedisServer.available(program):
        pytest.skip(f"{program} is not on PATH")

    with RedisServer(program) as server:
        yield server
