"""Real gateway processes: who may start, how one leaves, and what its readers lose when it dies."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from millstream import Client
from tests.cli.program import APP, Program
from tests.gateway.issuer import Issuer
from tests.gateway.processes import gateways
from tests.gateway.served import served, worker
from tests.gateway.sse import Message, messages
from tests.servers import RedisServer

pytestmark = pytest.mark.slow

OPEN = ("--insecure-open", "--host", "127.0.0.1")


async def test_readers_of_a_gateway_that_dies_go_on_at_another(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """No event is lost, and none told twice, whoever was in the middle of what."""
    redis_server.flush()
    count, readers = 150, 10
    told: dict[int, list[Message]] = {n: [] for n in range(readers)}
    far = anyio.Event()

    async def read(http: aiohttp.ClientSession, number: int, bases: list[str]) -> None:
        found = told[number]
        for base in bases:
            headers = {"Last-Event-ID": found[-1].id} if found else {}
            try:
                url = f"{base}/api/v1/runs/r1/events"
                async with http.get(url, headers=headers) as answer:
                    async for message in messages(answer):
                        found.append(message)
                        if len(found) == count // 3:
                            far.set()
            except aiohttp.ClientError:
                continue
            if found and found[-1].kind == "end":
                return

    with gateways(tmp_path, redis_server.url, 2, *OPEN) as (first, second):
        bases = [first.base, second.base]
        async with Client(redis_server.url) as client, aiohttp.ClientSession() as http:
            with anyio.fail_after(60):
                async with worker(redis_server.url), anyio.create_task_group() as group:
                    await client.enqueue("ticks", {"to": count}, id="r1")
                    for number in range(readers):
                        group.start_soon(read, http, number, bases)
                    await far.wait()
                    first.kill()
        assert second.stop() == 0

    for found in told.values():
        assert [m.data["data"] for m in found[:-1]] == list(range(count))
        assert found[-1].kind == "end"
    assert '"event":"request_served"' not in second.log  # ordinary requests are no news


async def test_a_gateway_drains_while_readers_listen(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """SIGTERM: streams end at once, and the process with them, well within its grace."""
    redis_server.flush()
    with gateways(tmp_path, redis_server.url, 1, *OPEN) as (gateway,):
        async with Client(redis_server.url) as client, aiohttp.ClientSession() as http:
            await client.enqueue("nobody-serves-it", id="r1")
            async with http.get(f"{gateway.base}/api/v1/runs/r1/events") as answer:
                assert await answer.content.readline() == b"retry: 1000\n"
                async with http.get(gateway.metrics) as metrics:
                    assert "millstream_gateway_accepting 1.0" in await metrics.text()
                assert await anyio.to_thread.run_sync(gateway.stop) == 0
                assert [m async for m in messages(answer)] == []
    assert '"event":"gateway_draining"' in gateway.log


def test_a_gateway_that_nobody_could_call_does_not_start(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """It says what to do; with a key in the store it starts, and the key opens it."""
    redis_server.flush()
    call = Program(tmp_path, {"MILLSTREAM_REDIS": redis_server.url})
    ports = ("--http", "0", "--metrics", "-1", "--grpc", "-1", "--host", "127.0.0.1")

    refused = call("gateway", *ports)
    assert refused.code == 2
    assert "millstream keys create" in refused.err
    elsewhere = call("gateway", "--http", "0", "--metrics", "-1", "--grpc", "-1", "--insecure-open")
    assert (elsewhere.code, "only this machine" in elsewhere.err) == (2, True)

    made = call("keys", "create", "ci", "--role", "viewer", "--json").json
    listed = call("keys", "list", "--json").json
    assert [key["id"] for key in listed["keys"]] == [made["id"]]
    assert made["key"] not in str(listed)
    with gateways(tmp_path, redis_server.url, 1, "--host", "127.0.0.1") as (gateway,):
        asked = urllib.request.Request(
            f"{gateway.base}/api/v1/queues", headers={"X-API-Key": made["key"]}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200
        assert gateway.stop() == 0
    assert call("keys", "revoke", made["id"]).code == 0
    assert call("keys", "list", "--json").json["keys"][0]["state"] == "revoked"
    assert call("keys", "prune", "--json").json == {"pruned": 1}
    assert call("keys", "create", "x", "--role", "king").code == 2


async def test_a_worker_says_what_it_serves(
    redis_server: RedisServer, issuer: Issuer, tmp_path: Path
) -> None:
    """A real worker process, and whoever asks a gateway for the schema of its arguments."""
    redis_server.flush()
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    call = Program(tmp_path, {"MILLSTREAM_REDIS": redis_server.url})
    working = call.start("worker", "flows:app", "--http", "-1", "--metrics", "-1")
    try:
        async with served(redis_server.url, issuer) as gateway:
            found: list[Any] = []
            with anyio.fail_after(40):
                while not found:
                    _, answer = await gateway.get("/workflows")
                    found = answer["workflows"]
                    await anyio.sleep(0.1)
    finally:
        working.process.terminate()
        working.stop()

    (add,) = [each for each in found if each["name"] == "add"]
    assert add["arguments"]["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
    assert add["arguments"]["required"] == ["a"]
