"""What these tests share: a Redis that keeps what it acknowledged, workers, and a client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import SyncClient
from tests.processes.fleet import Fleet
from tests.servers import RedisServer

#: Short enough for a test to wait for, long enough for a busy machine.
LEASE_S = 1.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of one test. It syncs before it answers, so not even a kill loses an answer."""
    with RedisServer(appendonly=True, config={"appendfsync": "always"}) as server:
        yield server


@pytest.fixture
def fleet(server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    """Workers with a lease of a second."""
    with Fleet(tmp_path, server.url, lease=LEASE_S) as fleet:
        yield fleet


@pytest.fixture
def client(server: RedisServer) -> Iterator[SyncClient]:
    """A client that bears with a Redis that is away."""
    with SyncClient(server.url, patience=30) as client:
        yield client
