"""Requests over HTTP: one write each, on connections that hold nothing but what was asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
import trustme
from yarl import URL

from millstream_worker.tools.exchanges import Exchanges
from millstream_worker.tools.faults import TooLarge
from millstream_worker.tools.messages import read_bounded
from millstream_worker.tools.sockets import Ticket, open_http

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Scripted:
    """A server that says what it is told to, byte by byte."""

    #: For each connection, what is said to each request on it; then it is closed.
    script: Sequence[Sequence[bytes]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @asynccontextmanager
    async def serve(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = self.script[self.connections]
        self.connections += 1
        try:
            for answer in answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                writer.write(answer)
            if answers[-1:] != [OK]:
                writer.close()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def exchanges(self, path: str = "/mcp?a=1", user: str = "") -> AsyncIterator[Exchanges]:
        async with open_http(allow_private=True) as http:
            yield Exchanges(http, URL(f"http://{user}127.0.0.1:{self.port}{path}"))


async def ask(exchanges: Exchanges, **headers: str) -> bytes:
    """Send a request, and read what is answered."""
    async with exchanges.request("POST", headers, b"ping", Ticket()) as response:
        return await read_bounded(response, 1000)


async def test_a_request_is_what_a_client_of_http_says() -> None:
    """The host, the length, the path with its query; the credentials of the address."""
    async with Scripted([[OK]]).serve() as server, server.exchanges(user="me:p%40ss@") as way:
        assert await ask(way, accept="application/json") == b"{}"

    head, _, body = server.requests[0].decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    assert (first, body) == ("POST /mcp?a=1 HTTP/1.1", "ping")
    assert set(lines) >= {
        f"host: 127.0.0.1:{server.port}",
        "accept: application/json",
        "authorization: Basic bWU6cEBzcw==",
        "content-length: 4",
    }


async def test_what_the_caller_says_comes_before_what_is_usual() -> None:
    """One header of a name, whatever its case: two hosts are what smuggling is made of."""
    async with Scripted([[OK]]).serve() as server, server.exchanges() as way:
        await ask(way, Host="mcp.example.org")
    assert server.requests[0].lower().count(b"host:") == 1
    assert b"Host: mcp.example.org\r\n" in server.requests[0]


@pytest.mark.parametrize(
    "header",
    [
        ("x-key", "a\r\ncontent-length: 0"),
        ("x-key", "a\nb"),
        ("x-key", "a\0b"),
        ("x key", "a"),
        ("x-key:", "a"),
        ("", "a"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
    ],
)
async def test_a_header_that_would_say_more_is_not_sent(header: tuple[str, str]) -> None:
    """Where a request ends is not for a header of somebody else to say."""
    async with Scripted([[OK]]).serve() as server, server.exchanges() as way:
        with pytest.raises(ValueError, match="headers"):
            way.request("POST", dict([header]), b"ping", Ticket())
    assert server.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
    ],
    ids=["length", "after what is said in between", "chunked", "to the end"],
)
async def test_a_body_is_read_however_it_is_framed(answer: bytes) -> None:
    """Each way of saying where it ends is one that servers use."""
    async with Scripted([[answer]]).serve() as server, server.exchanges() as way:
        assert await ask(way) == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}",
    ],
    ids=["nothing", "not http", "short", "short chunk", "two lengths", "no number"],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes) -> None:
    """It was sent, and nobody knows what became of it: never half a body as if it were whole."""
    ticket = Ticket()
    async with Scripted([[answer]]).serve() as server, server.exchanges() as way:
        with pytest.raises(aiohttp.ClientError):
            async with way.request("POST", {}, b"ping", ticket) as response:
                await read_bounded(response, 1000)
    assert ticket.sent


async def test_a_connection_is_used_again() -> None:
    """Opening one costs more than a call."""
    async with Scripted([[OK, OK, OK]]).serve() as server, server.exchanges() as way:
        for _ in range(3):
            assert await ask(way) == b"{}"
    assert server.connections == 1


async def test_an_answer_that_nobody_asked_for_answers_nothing() -> None:
    """Two answers to one request: the second must not pass for that of the next request."""
    other = OK.replace(b"{}", b"[]")
    async with Scripted([[OK + other], [OK]]).serve() as server, server.exchanges() as way:
        assert await ask(way) == b"{}"
        assert await ask(way) == b"{}"
    assert server.connections == 2


async def test_a_connection_on_which_something_is_left_is_closed() -> None:
    """The rest of a body that was too long would be read as the next answer."""
    long = OK.replace(b"Length: 2", b"Length: 9000").replace(b"{}", b"x" * 5000)
    async with Scripted([[long, OK], [OK]]).serve() as server, server.exchanges() as way:
        with pytest.raises(TooLarge):
            await ask(way)
        assert await ask(way) == b"{}"
    assert server.connections == 2


async def test_what_never_left_says_so() -> None:
    """Nobody listens there: it may be sent again."""
    async with Scripted([]).serve() as server:
        pass
    ticket = Ticket()
    async with server.exchanges() as way:
        with pytest.raises(aiohttp.ClientConnectorError):
            async with way.request("POST", {}, b"ping", ticket):
                pass
    assert not ticket.sent


async def test_a_secure_address_is_spoken_to_in_tls() -> None:
    """And a certificate that nobody vouched for ends the call before it is sent."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    async with Scripted([[OK]] * 2).serve(theirs) as server:
        url = URL(f"https://127.0.0.1:{server.port}/mcp")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ours)) as http:
            assert await ask(Exchanges(http, url)) == b"{}"

        ticket = Ticket()
        async with open_http(allow_private=True) as http:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                async with Exchanges(http, url).request("POST", {}, b"ping", ticket):
                    pass
        assert not ticket.sent
