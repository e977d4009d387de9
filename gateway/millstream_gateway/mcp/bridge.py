"""Let the SDK's server answer a request that our own HTTP server has read.

The SDK speaks ASGI. Its server is stateless here and answers in one piece, so a request is one
exchange: what was read goes in, what comes out is collected. Who calls was found out before, and
travels in the scope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio
from aiohttp import web

from millstream_gateway.calls import Call

#: Under this name the call travels to whoever handles a tool.
CALL = "millstream.call"
#: Of an answer: the others are about a connection, and ours are set by our own server.
_KEPT = frozenset({"content-type", "allow", "mcp-protocol-version"})

_Message = MutableMapping[str, Any]
Asgi = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[_Message]],
        Callable[[_Message], Awaitable[None]],
    ],
    Awaitable[None],
]


async def exchange(app: Asgi, call: Call) -> web.Response:
    """Return what an application answers to a call, whose body was read already."""
    answer = _Answer()
    told = False

    async def receive() -> _Message:
        nonlocal told
        if told:
            await anyio.sleep_forever()
        told = True
        return {"type": "http.request", "body": call.body, "more_body": False}

    await app(_scope(call), receive, answer.send)
    return web.Response(body=bytes(answer.body), status=answer.status, headers=answer.headers)


def _scope(call: Call) -> MutableMapping[str, Any]:
    request = call.request
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.rel_url.path,
        "raw_path": request.rel_url.raw_path.encode(),
        "query_string": b"",
        "root_path": "",
        # Whatever names the caller stays here: it was looked at, and is nobody else's business.
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in request.headers.items()
            if name.lower() not in {"authorization", "x-api-key", "cookie"}
        ],
        "client": None,
        "server": None,
        "state": {},
        CALL: call,
    }


class _Answer:
    """Collects what an application sends."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def send(self, message: _Message) -> None:
        """Take a message of the application."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                if name.decode("latin-1").lower() in _KEPT:
                    self.headers[name.decode("latin-1")] = value.decode("latin-1")
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
