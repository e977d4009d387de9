"""HTTP requests to one server, with aiohttp's connections and parser and without its client.

aiohttp's connector opens and keeps the connections, to checked addresses, with TLS where the URL
says so; its protocol parses what comes. What lies between, an object for each request and for
each response, cookies, redirects, traces and charsets, costs more than all the rest of a call
and does nothing for one.

Promise: a request leaves in one write, on a connection on which nothing stands that was not asked
for; its ticket says whether it has begun to leave; a connection is kept only if all of the
response was read. It knows no JSON-RPC, and bounds no time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from yarl import URL

from millstream_worker.tools.sockets import CONNECT_S, Ticket

#: All of a request's head: a name is a token, and no value ends its line.
_HEAD = re.compile(
    r"[A-Z]+ [!-~]+ HTTP/1\.1\r\n"
    r"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+: [^\x00-\x08\x0a-\x1f\x7f]*\r\n)+\r\n"
)
#: What says where a request ends is said here, and by nobody else.
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
#: More than may be kept: each that is found spoilt is closed.
_MOST_SPOILT = 100


class Response(Protocol):
    """What is read of a response, ours or aiohttp's."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def reason(self) -> str | None:
        """What the server says beside the code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, under names of any case."""

    @property
    def content(self) -> aiohttp.StreamReader:
        """The body, as it comes."""

    @property
    def content_type(self) -> str:
        """The type of the body, without its parameters."""

    @property
    def content_length(self) -> int | None:
        """How long the body is, where that is said in front."""


class Exchanges:
    """The way to one URL."""

    def __init__(self, http: aiohttp.ClientSession, url: URL) -> None:
        self._http = http
        self._own: dict[str, str] = {}
        if url.user is not None or url.password is not None:
            given = aiohttp.encode_basic_auth(url.user or "", url.password or "")
            self._own["authorization"] = given
            url = url.with_user(None)
        #: Says where to connect to, and what aiohttp itself puts into every request.
        self._place = aiohttp.ClientRequest(
            "POST", url, loop=asyncio.get_running_loop(), session=http
        )
        for name in ("host", "user-agent"):
            self._own[name] = self._place.headers[name]
        self._target = url.raw_path_qs

    def request(
        self, verb: str, headers: Mapping[str, str], body: bytes, ticket: Ticket
    ) -> Exchange:
        """Return a request that is sent when it is entered."""
        return Exchange(self, self._encode(verb, headers, body), ticket)

    async def connection(self) -> Connection:
        """Return a connection that nothing has come on and nobody else uses.

        Raises what aiohttp and the system raise.
        """
        connector = self._http.connector
        if connector is None:
            raise RuntimeError("Session is closed")
        for _ in range(_MOST_SPOILT):
            found = await connector.connect(self._place, [], _TIMEOUT)
            if found.protocol is not None and not found.protocol.should_close:
                return found
            # What came unasked would be read as the answer to what is asked next.
            found.close()
        raise aiohttp.ClientConnectionError("the server speaks without being asked")

    def _encode(self, verb: str, headers: Mapping[str, str], body: bytes) -> bytes:
        given = {name.lower() for name in headers}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        lines += [f"{name}: {value}\r\n" for name, value in self._own.items() if name not in given]
        if body:
            lines.append(f"content-length: {len(body)}\r\n")
        head = f"{verb} {self._target} HTTP/1.1\r\n{''.join(lines)}\r\n"
        # One line more than was put in is one that somebody's value has made.
        whole = head.count("\n") == len(lines) + 2 and _HEAD.fullmatch(head)
        if not whole or given & _FRAMING:
            raise ValueError("its headers are none that HTTP allows here")
        return head.encode() + body


class Exchange:
    """One request and its response, open as long as the block lasts."""

    __slots__ = ("_connection", "_exchanges", "_request", "_ticket", "content", "headers",
                 "reason", "status")  # fmt: skip

    def __init__(self, exchanges: Exchanges, request: bytes, ticket: Ticket) -> None:
        self._exchanges = exchanges
        self._request = request
        self._ticket = ticket

    async def __aenter__(self) -> Self:
        self._connection = connection = await self._exchanges.connection()
        try:
            message, self.content = await self._answer(connection)
        except BaseException:
            connection.close()
            raise
        self.status: int = message.code
        self.reason: str | None = message.reason
        self.headers: Mapping[str, str] = message.headers
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It is closed, and not kept, where the response has not been read to its end.
        self._connection.release()

    @property
    def content_type(self) -> str:
        """The type of the body, without its parameters."""
        given = self.headers.get("Content-Type", "application/octet-stream")
        return given.partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """How long the body is, where that is said in front."""
        given = self.headers.get("Content-Length")
        return None if given is None else int(given)

    async def _answer(
        self, connection: Connection
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was closed before it was used")
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        self._ticket.sent = True
        transport.write(self._request)
        try:
            while True:
                message, content = await protocol.read()
                # What comes before the response (100, 103) says nothing that is waited for.
                if not 100 <= message.code < 200 or message.code == 101:
                    return message, content
        except HttpProcessingError as error:
            raise aiohttp.ClientConnectionError(f"its answer is not HTTP ({error})") from error
