"""Other agents at two real gateways over one Redis: what one knows the other knows."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from millstream.store import catalogues
from millstream.store.connection import Connection
from millstream_worker.described import describe
from tests.gateway.agents import BINDINGS, peer, states
from tests.gateway.processes import gateways
from tests.gateway.served import worker_of
from tests.gateway.test_a2a import app, data_of
from tests.servers import RedisServer

pytestmark = pytest.mark.slow

OPEN = ("--insecure-open", "--host", "127.0.0.1")


async def test_a_task_outlives_the_gateway_that_began_it(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """Begun and streamed at one that dies, found, answered and ended at another."""
    redis_server.flush()
    connection = Connection(redis_server.url)
    await catalogues.publish(connection, "default", catalogues.note(describe(app)), 600)
    with gateways(tmp_path, redis_server.url, 2, *OPEN) as (first, second):
        async with worker_of(redis_server.url, app):
            begun: dict[str, str] = {}
            for binding in BINDINGS:
                async with peer(first.base, binding) as agent:
                    told = await agent.stream("pies", skill="order", message_id=binding)
                    assert states(told)[-1] == "input_required"
                    begun[binding] = told[0]["task"]["id"]
            first.kill()
            for binding in BINDINGS:
                async with peer(second.base, binding) as agent:
                    with anyio.fail_after(30):
                        again = await agent.send("pies", skill="order", message_id=binding)
                        assert again["id"] == begun[binding]
                        await agent.send("2", task=again["id"])
                        told = await agent.stream("yes", task=again["id"])
                    assert states(told)[-1] == "completed"
                    assert data_of(await agent.get(again["id"]))["approved"] is True
            async with peer(second.base, "GRPC") as agent:
                assert second.grpc in {each.url for each in agent.card.supported_interfaces}
        assert second.stop() == 0
    await connection.aclose()
