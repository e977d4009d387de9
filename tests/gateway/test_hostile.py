"""Requests that no client sends: never data, never a 5xx, never a process that hangs.

They are written to the socket as they are, since every client library is too polite.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import anyio
import pytest

from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served

ENQUEUE = "POST /api/v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
async def short(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A gateway that waits for nothing longer than a tenth of a second, and outlives it all."""
    issuer = Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")
    memory_url = "memory://hostile"
    parts = {"body_s": 0.1, "idle_s": 0.3}
    async with served(memory_url, issuer, parts=parts, max_body=65_536) as gateway:
        yield gateway


async def send(gateway: Served, *parts: str | bytes) -> bytes:
    """Write parts to a socket and return all that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        with anyio.fail_after(10):
            for part in parts:
                data = part.encode("latin-1") if isinstance(part, str) else part
                writer.write(data.replace(b"TOKEN", gateway.token.encode()))
                try:
                    await writer.drain()
                except ConnectionError:
                    break  # it has read enough
            return await reader.read()
    except ConnectionError:
        return b""  # nothing was said, and the connection is closed
    finally:
        writer.transport.abort()


def status_of(answer: bytes) -> int:
    """The status of the first answer; 0: there was none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


AUTH = "Authorization: Bearer TOKEN\r\n"
CLOSE = "Connection: close\r\n"
# ruff: noqa: E501 - a table: one request a line reads better than any wrapping of it
#: What is sent, and the status that says no: 0 is a closed connection.
HOSTILE: dict[str, tuple[tuple[str | bytes, ...], set[int]]] = {
    "no http at all": (("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",), {0, 400}),
    "a line without end": (("GET /" + "a" * 20_000 + " HTTP/1.1\r\n\r\n",), {400}),
    "a header without end": ((f"GET /health HTTP/1.1\r\nHost: x\r\nX: {'a' * 20_000}\r\n\r\n",), {400}),
    "headers without end": (("GET /health HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 500 + "\r\n",), {400}),
    "a head that never ends": (("GET /health HTTP/1.1\r\nHost: x\r\n",), {0}),
    "nothing": ((), {0}),
    "no host": ((f"GET /api/v1/runs HTTP/1.1\r\n{AUTH}{CLOSE}\r\n",), {400}),
    "two hosts": ((f"GET /api/v1/runs HTTP/1.1\r\nHost: x\r\nHost: y\r\n{AUTH}\r\n",), {400}),
    "two lengths": ((f"{ENQUEUE}{AUTH}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",), {400}),
    "length and chunks": (
        (f"{ENQUEUE}{AUTH}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",),
        {400},
    ),
    "chunks spelt oddly": (
        (f"{ENQUEUE}{AUTH}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",), {400},
    ),
    "a broken chunk": ((f"{ENQUEUE}{AUTH}Transfer-Encoding: chunked\r\n\r\nzz\r\n",), {400}),
    "a negative length": ((f"{ENQUEUE}{AUTH}Content-Length: -1\r\n\r\n",), {400}),
    "a line break in a header": ((f"GET /health HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n{CLOSE}\r\n",), {400}),
    "a folded header": ((f"GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n  b\r\n{CLOSE}\r\n",), {200, 400}),
    "a body that does not come": ((f"{ENQUEUE}{AUTH}Content-Length: 50\r\n\r\n{{",), {408}),
    "a body said to be huge": ((f"{ENQUEUE}{AUTH}Content-Length: 99999999999\r\n\r\n",), {413}),
    "a body that is huge": (
        (f"{ENQUEUE}{AUTH}Transfer-Encoding: chunked\r\n\r\n", *[b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * 8),
        {413},
    ),
    "a body of nobody": ((f"{ENQUEUE}Content-Length: 50000\r\n{CLOSE}\r\n",), {401}),
    "a compressed body": ((f"{ENQUEUE}{AUTH}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}",), {415}),
    "a form": ((f"POST /api/v1/runs HTTP/1.1\r\nHost: x\r\n{AUTH}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}",), {415}),
    "an expectation": ((f"{ENQUEUE}{AUTH}Expect: miracles\r\nContent-Length: 2\r\n{CLOSE}\r\n{{}}",), {400, 417}),
    "two tokens": ((f"GET /api/v1/runs HTTP/1.1\r\nHost: x\r\n{AUTH}{AUTH}{CLOSE}\r\n",), {400}),
    "another method": ((f"TRACE /api/v1/runs HTTP/1.1\r\nHost: x\r\n{AUTH}{CLOSE}\r\n",), {405}),
    "a proxy request": ((f"GET http://evil.test/api/v1/nowhere HTTP/1.1\r\nHost: x\r\n{AUTH}{CLOSE}\r\n",), {404}),
    "a tunnel": ((f"CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n{AUTH}{CLOSE}\r\n",), {400, 404, 405}),
    "an upgrade": ((f"GET /api/v1/nowhere HTTP/1.1\r\nHost: x\r\n{AUTH}Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",), {404}),
}  # fmt: skip


@pytest.mark.parametrize("attempt", HOSTILE)
async def test_a_hostile_request_is_refused_and_forgotten(short: Served, attempt: str) -> None:
    """And whoever comes next is served as if nothing had happened."""
    parts, expected = HOSTILE[attempt]

    answer = await send(short, *parts)

    assert status_of(answer) in expected, answer
    assert answer.count(b"HTTP/1.1 ") <= 1, "a second request was smuggled in"
    assert (await short.get("/queues"))[0] == 200
    assert (await short.client.depth()).waiting == 0


PATHS = [
    "/api/v1/../../etc/passwd", "/api/v1/runs/..%2f..%2fhealth", "//api/v1/queues",
    "/api/v1/queues/", "/API/v1/queues", "/api/v1/queues;x=1", "/api/v1/queues%00",
    "/api/v1/%2e%2e/queues", "/api/v1/runs/%", "/api/v1/runs/%ff", "/api/v1/runs/%0d%0aX:%20y",
    "/api/v1/runs/" + "a" * 300, "/api/v1/queues/{default:0}", "/api/v1/queues/default%7d",
    "/api/v1/runs/a%7b0%7d", "/.git/config", "/metrics", "/api/v1/runs/..", "/%61pi/v1/nowhere",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_leads_anywhere_else(short: Served, path: str) -> None:
    """What is not a route is nothing, and what is no id is no key in the store."""
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\n{AUTH}{CLOSE}\r\n"

    answer = await send(short, head)

    assert status_of(answer) in {400, 403, 404}, answer
    assert b"root:" not in answer
    assert b"X: y" not in answer.partition(b"\r\n\r\n")[0]


BODIES = [
    b"", b"{", b"[]", b"null", b'"x"', b'{"workflow": 7}', b'{"workflow": ""}',
    b'{"workflow": "add"}x', b'{"workflow": "a b"}', b'{"workflow": "add", "arguments": []}',
    b'{"workflow": "add", "nothing": 1}', b'{"workflow": "add", "id": "../x"}',
    b'{"workflow": "add", "id": "{x}"}', b'{"workflow": "add", "queue": "a:b"}',
    b'{"workflow": "add", "delay": -1}', b'{"workflow": "add", "delay": 1e999}',
    b'{"workflow": "add", "timeout": 0}', b'{"workflow": "add", "priority": "now"}',
    b'{"workflow": "\xff"}', b'{"workflow": "add", "arguments": {"a": "\\ud800"}}',
    b"[" * 20_000, b'{"workflow": "add", "arguments": {"a": ' + b"[" * 20_000,
    b'{"workflow": "add", "arguments": {"a": NaN}}', b'{"workflow": "add\\u0000"}',
    b'{"workflow": "add", "version": "1\\n2"}', b'{"runs": []}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body[:40]))
async def test_a_body_that_is_not_as_described_enqueues_nothing(short: Served, body: bytes) -> None:
    """It is refused as a whole, by a document that says why."""
    headers = {"Content-Type": "application/json"}

    status, problem = await short.ask("POST", "/api/v1/runs", data=body, headers=headers)

    assert (status, problem["status"]) in {(400, 400), (404, 404)}, problem
    assert (await short.client.depth()).waiting == 0


async def test_numbers_that_no_machine_word_holds_are_no_mistake_of_ours(gateway: Served) -> None:
    """JSON has no bound; what the store cannot write down is refused."""
    for number in (10**30, -(10**30), 2**64, 2**63):
        body = json.dumps({"workflow": "add", "arguments": {"a": number}}).encode()
        headers = {"Content-Type": "application/json"}
        status, _ = await gateway.ask("POST", "/api/v1/runs", data=body, headers=headers)
        assert status in {201, 400}


async def test_a_body_that_is_held_back_is_asked_for_once_it_is_wanted(gateway: Served) -> None:
    """Who may not ask never sends it; who may is told to go on."""
    body = b'{"workflow":"add","arguments":{"a":1}}'
    head = f"{ENQUEUE}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n{CLOSE}"

    refused = await send(gateway, f"{head}\r\n")
    accepted = await send(gateway, f"{head}{AUTH}\r\n", body)

    assert status_of(refused) == 401
    assert accepted.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


async def test_a_flood_of_connections_leaves_those_that_are_there(
    memory_url: str, issuer: Issuer
) -> None:
    """Beyond the bound a connection is cut at once, and the others are answered."""
    async with served(memory_url, issuer, connections=20) as gateway:
        assert (await gateway.get("/queues"))[0] == 200  # this connection stays open
        open_ = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(60)]
        for _, writer in open_:
            writer.write(b"GET /health HTTP/1.1\r\n")
        assert (await gateway.get("/queues"))[0] == 200
        for _, writer in open_:
            writer.transport.abort()


async def test_no_page_of_another_origin_is_let_in(gateway: Served) -> None:
    """CORS is off: a browser hears no word of permission, not even to a question."""
    headers = {"Origin": "https://evil.test", "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "GET"):
        url = f"{gateway.url}/api/v1/queues"
        async with gateway.http.request(method, url, headers=headers) as answer:
            assert answer.status in {401, 405}
            assert not [name for name in answer.headers if name.lower().startswith("access-")]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Server"] == "millstream"


async def test_an_answer_says_the_same_however_it_is_written(gateway: Served) -> None:
    """In one piece over a connection that is kept, and by aiohttp over one that ends."""
    url = f"{gateway.url}/api/v1/queues"
    shown = {"Authorization": f"Bearer {gateway.token}"}
    found: list[tuple[int, str | None, dict[str, str], bytes]] = []
    asked: list[tuple[str, dict[str, str]]] = [
        ("GET", {}),
        ("GET", {"Connection": "close"}),
        ("HEAD", {}),
    ]
    for method, more in asked:
        async with gateway.http.request(method, url, headers={**shown, **more}) as answer:
            head = {k: v for k, v in answer.headers.items() if k not in {"Date", "Connection"}}
            found.append((answer.status, answer.reason, head, await answer.read()))
            assert parsedate_to_datetime(answer.headers["Date"]).utcoffset() == timedelta(0)

    kept, closed, head_only = found
    assert kept == closed
    assert json.loads(kept[3])["queues"]
    assert kept[2]["Content-Length"] == str(len(kept[3]))
    assert (head_only[2].keys() ^ kept[2].keys()) <= {"Content-Length"}
    assert head_only[3] == b""
