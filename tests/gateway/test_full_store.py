"""A hundred thousand runs in the store: no page costs more for it. Counted, not timed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from millstream import Client, Enqueue
from millstream.store.places import MOST_LOOKED_AT
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served
from tests.gateway.test_pages import browser, text
from tests.servers import RedisServer

pytestmark = pytest.mark.slow

RUNS = 100_000
#: Look-ups of a run take three commands each.
LOOK = 3


@pytest.fixture(scope="module")
async def full(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A gateway over a store with many runs that wait."""
    redis_server.flush()
    async with Client(redis_server.url) as client:
        for first in range(0, RUNS, 20_000):
            part = range(first, first + 20_000)
            await client.enqueue_many([Enqueue("add", {"a": n}, id=f"r{n}") for n in part])
    issuer = Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")
    async with served(redis_server.url, issuer) as gateway:
        yield gateway


async def counted(redis_server: RedisServer, ask: Callable[[], Awaitable[Any]]) -> int:
    """How many commands it takes to be answered."""
    with redis_server.client() as client:
        before = int(client.info("stats")["total_commands_processed"])
        await ask()
        return int(client.info("stats")["total_commands_processed"]) - before


async def test_pages_and_lists_cost_what_they_show(full: Served, redis_server: RedisServer) -> None:
    """The overview a few commands, a list its page, and a filter that fits little its bound."""

    async def listed(query: str) -> dict[str, Any]:
        status, page = await full.get(f"/runs?{query}")
        assert status == 200
        return dict(page)

    async with browser(full, full.token) as http:
        overview = await counted(redis_server, lambda: text(http, f"{full.url}/"))
        runs = await counted(redis_server, lambda: text(http, f"{full.url}/runs"))
        one = await counted(redis_server, lambda: text(http, f"{full.url}/runs/r50000"))
        asked = await counted(redis_server, lambda: text(http, f"{full.url}/questions"))
    page = await counted(redis_server, lambda: listed("limit=200"))
    rare = await counted(redis_server, lambda: listed("workflow=nothing"))

    assert overview <= 100
    assert one <= 50
    assert asked <= 50
    assert runs <= 250 * LOOK
    assert page <= 250 * LOOK
    assert rare <= 1.1 * MOST_LOOKED_AT * LOOK
    body = {"all": True, "workflow": "nothing"}
    many = await counted(redis_server, lambda: full.post("/queues/default/runs/cancel", body))
    assert many <= 1.1 * MOST_LOOKED_AT * LOOK
