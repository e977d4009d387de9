"""What a run says reaches whoever listens: all of it, once, and again after any break."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker
from tests.gateway.sse import Message, messages
from tests.servers import RedisServer


@contextlib.asynccontextmanager
async def stream(
    gateway: Served, run_id: str, *, seen: str = "", token: str = ""
) -> AsyncIterator[AsyncIterator[Message]]:
    """Listen to a run."""
    headers = {"Authorization": f"Bearer {token or gateway.token}"}
    if seen:
        headers["Last-Event-ID"] = seen
    url = f"{gateway.url}/api/v1/runs/{run_id}/events"
    async with gateway.http.get(url, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield messages(answer)


async def test_a_stream_ends_with_the_run(working: Served) -> None:
    """Everything that was said, then how it ended, and the connection closes."""
    await working.post("/runs", {"workflow": "counts", "arguments": {"to": 250}, "id": "r1"})

    async with stream(working, "r1") as found:
        told = [message async for message in found]

    assert [message.data["data"] for message in told[:-1]] == list(range(250))
    assert {message.kind for message in told[:-1]} == {"emit"}
    assert (told[-1].kind, told[-1].data["state"]) == ("end", "completed")


async def test_steps_and_text_are_passed_on_as_they_are(working: Served) -> None:
    """A page can show what an agent does while it does it."""
    await working.post("/runs", {"workflow": "works", "id": "r1"})

    async with stream(working, "r1") as found:
        told = [message async for message in found]

    assert [(m.kind, m.data.get("name")) for m in told] == [
        ("step", "started"), ("step", "ended"), ("step", "started"), ("text", "text"),
        ("step", "ended"), ("end", None),
    ]  # fmt: skip
    assert told[1].data["data"]["status"] == "ok"
    assert told[3].data["data"]["text"] == "the tide is in"


async def test_what_is_not_kept_any_more_is_said_to_be_missing(working: Served) -> None:
    """It has no id of its own: a reader that breaks off there goes on from where it was."""
    await working.post("/runs", {"workflow": "counts", "arguments": {"to": 1500}, "id": "r1"})
    await working.get("/runs/r1/result?wait=20")

    async with stream(working, "r1") as found:
        told = [message async for message in found]

    gap, *rest, _ = told
    assert (gap.id, gap.kind) == ("", "left_out")
    assert [message.data["data"] for message in rest] == list(
        range(gap.data["data"]["events"], 1500)
    )


async def test_a_reader_goes_on_after_the_last_event_it_has_seen(working: Served) -> None:
    """Wherever it was cut, nothing is missed or told twice; after the end comes nothing."""
    await working.post("/runs", {"workflow": "counts", "arguments": {"to": 9}, "id": "r1"})
    await working.get("/runs/r1/result?wait=20")
    told: list[Message] = []

    while not told or told[-1].kind != "end":
        async with stream(working, "r1", seen=told[-1].id if told else "") as found:
            async for message in found:
                told.append(message)
                if len(told) % 4 == 0:
                    break

    assert [message.data["data"] for message in told[:-1]] == list(range(9))
    status, _ = await working.get("/runs/r1/events", headers={"Last-Event-ID": told[-1].id})
    assert status == 204
    async with stream(working, "r1", seen=told[-2].id) as found:
        assert [message.kind async for message in found] == ["end"]


async def test_news_reach_everybody_who_listens(gateway: Served) -> None:
    """Many readers of many runs share one connection to the store."""
    ids = [f"r{n}" for n in range(12)]
    runs = [{"workflow": "add", "arguments": {"a": n}, "id": x} for n, x in enumerate(ids)]
    await gateway.post("/runs/batch", {"runs": runs})
    ends: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        readers = [(x, await stack.enter_async_context(stream(gateway, x))) for x in ids * 2]

        async def listen(run_id: str, found: AsyncIterator[Message]) -> None:
            told = [message async for message in found]
            assert [m.kind for m in told] == ["emit", "end"]
            assert told[0].data["data"]["a"] == int(run_id[1:])
            ends.append(run_id)

        with anyio.fail_after(20):
            async with worker(gateway.store), anyio.create_task_group() as group:
                for run_id, found in readers:
                    group.start_soon(listen, run_id, found)

    assert sorted(ends) == sorted(ids * 2)


@pytest.mark.slow
async def test_two_hundred_streams_end_at_once_and_none_is_cut(
    redis_server: RedisServer, issuer: Issuer
) -> None:
    """Over as many sockets; `tests/test_client.py` counts how many look at a time."""
    told: dict[str, list[str]] = {f"r{n}": [] for n in range(200)}
    async with served(redis_server.url, issuer, streams=200) as gateway:
        runs = [{"workflow": "add", "id": run_id, "delay": 1000} for run_id in told]
        await gateway.post("/runs/batch", {"runs": runs})
        async with contextlib.AsyncExitStack() as stack:
            opened = {x: await stack.enter_async_context(stream(gateway, x)) for x in told}

            async def listen(run_id: str, found: AsyncIterator[Message]) -> None:
                told[run_id] = [message.kind async for message in found]

            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    for run_id, found in opened.items():
                        group.start_soon(listen, run_id, found)
                    await gateway.client.cancel_many("default", list(told))

    assert set(map(tuple, told.values())) == {("end",)}


@pytest.mark.parametrize("seen", ["x", "1", "1-0\x7f", "end:x", "-1-0", "9" * 40 + "-0"])
async def test_an_event_id_that_was_not_given_out_is_refused(gateway: Served, seen: str) -> None:
    """It goes into a command of the store: nothing of it may be believed."""
    await gateway.post("/runs", {"workflow": "add", "arguments": {"a": 1}, "id": "r1"})

    status, _ = await gateway.get("/runs/r1/events", params={"after": seen})

    assert status == 400


async def test_a_caller_holds_so_many_streams_and_no_more(memory_url: str, issuer: Issuer) -> None:
    """A flood of one caller leaves room for others, and places are given back."""
    async with served(memory_url, issuer, streams=3, patience=0.0) as gateway:
        await gateway.post("/runs", {"workflow": "waits", "id": "r1"})
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(stream(gateway, "r1"))
            assert (await gateway.get("/runs/r1/events"))[0] == 429
            assert (await gateway.get("/runs/r1/result?wait=1"))[0] == 429
            assert (await gateway.get("/runs/r1"))[0] == 200
            other = issuer.token("viewer", sub="bob")
            await stack.enter_async_context(stream(gateway, "r1", token=other))
        with anyio.fail_after(10):
            while gateway.gateway._busy():
                await anyio.sleep(0.01)


async def test_a_reader_that_does_not_read_is_let_go_of(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is given to others within seconds."""
    monkeypatch.setattr("millstream_gateway.outgoing._WRITE_S", 0.1)
    await gateway.post("/runs", {"workflow": "large", "id": "r1"})
    async with worker(gateway.store):
        await gateway.get("/runs/r1/result?wait=20")
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        head = (
            "GET /api/v1/runs/r1/events HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {gateway.token}\r\n\r\n"
        )
        writer.write(head.encode())
        with anyio.fail_after(10):
            while not gateway.gateway._busy():
                await anyio.sleep(0.01)
            while gateway.gateway._busy():
                await anyio.sleep(0.01)
        writer.transport.abort()
        del reader


async def test_a_drain_ends_streams_and_waiting_requests(memory_url: str, issuer: Issuer) -> None:
    """Readers come back elsewhere; nobody is kept until the run has ended."""
    async with served(memory_url, issuer) as gateway:
        await gateway.post("/runs", {"workflow": "waits", "id": "r1"})
        async with worker(gateway.store), stream(gateway, "r1") as found:
            first = await anext(found)
            results_: list[int] = []

            async def wait() -> None:
                results_.append((await gateway.get("/runs/r1/result?wait=60"))[0])

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                while gateway.gateway._busy() < 2:
                    await anyio.sleep(0.01)
                gateway.gateway.drain.set()
                with anyio.fail_after(5):
                    assert [message async for message in found] == []
            assert (first.data["name"], results_) == ("waiting", [202])


async def test_an_idle_stream_says_that_it_lives(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies cut what is silent."""
    monkeypatch.setattr("millstream_gateway.outgoing.PING_S", 0.02)
    await gateway.post("/runs", {"workflow": "waits", "id": "r1"})
    headers = {"Authorization": f"Bearer {gateway.token}"}
    async with gateway.http.get(f"{gateway.url}/api/v1/runs/r1/events", headers=headers) as answer:
        with anyio.fail_after(5):
            lines = [await answer.content.readline() for _ in range(6)]

    assert lines.count(b": alive\n") == 2


async def test_events_of_a_real_store_are_told_as_they_come(
    redis_server: RedisServer, issuer: Issuer
) -> None:
    """A blocking read of many streams, on a connection that ordinary commands do not wait for."""
    redis_server.flush()
    async with served(redis_server.url, issuer) as gateway, worker(redis_server.url):
        await gateway.post("/runs", {"workflow": "waits", "id": "r1"})
        async with stream(gateway, "r1") as found:
            with anyio.fail_after(10):
                assert (await anext(found)).data["name"] == "waiting"
                assert (await gateway.post("/runs/r1/cancel"))[0] == 202
                assert (await anext(found)).data["state"] == "cancelled"
