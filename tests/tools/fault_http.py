"""The fault server over HTTP: statuses, streams, sessions, and connections that break."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import web

from tests.tools.fault_tools import FaultTools, Misbehaviour
from tests.tools.fault_wire import Wire


class FaultHttp:
    """The server over HTTP, inside a test or as a program."""

    def __init__(
        self,
        tools: FaultTools | None = None,
        *,
        era: str = "2026",
        sse: bool = False,
        sessions: bool = True,
    ) -> None:
        self.tools = tools or FaultTools()
        self.wire = Wire(self.tools, era=era)
        self.sse = sse
        self.keeps_sessions = sessions and era == "2025"
        self.sessions: dict[str, int] = {}
        self.ended_sessions: list[str] = []
        self.headers: list[dict[str, str]] = []
        #: Methods as they came in, for tests that count round trips.
        self.methods: list[str] = []
        #: Requests under way, so that a 2025 client can cancel them.
        self.under_way: dict[Any, anyio.CancelScope] = {}
        #: Bytes of huge answers that clients have taken before they hung up.
        self.poured = 0
        #: Statuses that the next requests get, whatever they ask.
        self.refusals: list[tuple[int, dict[str, str]]] = []
        #: Forget a session as soon as it was given out.
        self.forgets = False
        #: Say on the next stream that the tools have changed.
        self.announce_tools = False
        #: Ask the client something on its own stream, and what it replied.
        self.asks: list[str] = []
        self.replies: list[dict[str, Any]] = []
        #: A header without which a call does not match its listing.
        self.requires_header: str | None = None
        #: Refuse calls as those of a version that is gone.
        self.outdated = False
        #: Close each stream early, and answer on the one that takes it up.
        self.resumable = False
        self.resumed: list[str] = []
        self.port = 0
        self._late: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[FaultHttp]:
        app = web.Application()
        app.router.add_route("*", "/mcp", self.handle)
        # The handler of a client that hangs up is cancelled: that is how 2026 cancels.
        runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return web.Response(status=status, headers=headers)
        if request.method == "DELETE":
            self.ended_sessions.append(request.headers["mcp-session-id"])
            return web.Response()
        if request.method == "GET" and self.resumable:
            return await self._take_up(request)
        if request.method != "POST":
            return web.Response(status=405)

        message = json.loads(await request.read())
        if "method" not in message:
            self.replies.append(message)
            return web.Response(status=202)
        self.methods.append(message["method"])
        refusal = self._session_refusal(request, message) or self._call_refusal(request, message)
        return refusal or await self._take(request, message)

    async def _take(self, request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        if "id" not in message:
            return self._notified(request, message)
        try:
            answer = await self._cancellable(request, message)
        except Misbehaviour as fault:
            return await self._misbehave(request, message["id"], fault)
        return await self._respond(request, message, answer)

    def _session_refusal(
        self, request: web.Request, message: dict[str, Any]
    ) -> web.Response | None:
        if not self.keeps_sessions or message["method"] == "initialize":
            return None
        session = request.headers.get("mcp-session-id")
        if session is None:
            error = Wire.failure(None, -32000, "Bad Request: no session")
            return web.json_response(error, status=400)
        if session not in self.sessions:
            return web.json_response(Wire.failure(None, -32001, "Session not found"), status=404)
        self.sessions[session] += 1
        return None

    def _call_refusal(self, request: web.Request, message: dict[str, Any]) -> web.Response | None:
        if message["method"] != "tools/call":
            return None
        if self.outdated:
            error = Wire.failure(message["id"], -32022, "Unsupported protocol version")
            return web.json_response(error, status=400)
        if self.requires_header and self.requires_header not in request.headers:
            error = Wire.failure(message["id"], -32020, "Header mismatch")
            return web.json_response(error, status=400)
        return None

    def _notified(self, request: web.Request, message: dict[str, Any]) -> web.Response:
        if message["method"] == "notifications/cancelled":
            scope = self.under_way.get(_place(request, message["params"]["requestId"]))
            if scope is not None:
                scope.cancel()
        return web.Response(status=202)

    async def _cancellable(self, request: web.Request, message: dict[str, Any]) -> dict[str, Any]:
        with anyio.CancelScope() as scope:
            self.under_way[_place(request, message["id"])] = scope
            try:
                return await self.wire.answer(message)
            finally:
                del self.under_way[_place(request, message["id"])]
        return Wire.failure(message["id"], -32800, "cancelled")

    async def _respond(
        self, request: web.Request, message: dict[str, Any], answer: dict[str, Any]
    ) -> web.StreamResponse:
        headers = {}
        if message["method"] == "initialize" and self.keeps_sessions:
            headers["Mcp-Session-Id"] = f"session-{len(self.sessions) + 1}"
            if not self.forgets:
                self.sessions[headers["Mcp-Session-Id"]] = 0
        if not self.sse:
            return web.json_response(answer, headers=headers)
        stream = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        if self.resumable and message["method"] == "tools/call":
            # An event without data names the place; the answer comes when it is asked for.
            await stream.write(b"id: event-1\nretry: 1\ndata:\n\n")
            self._late = answer
            return stream
        for number, method in enumerate(self.asks):
            ask = {"jsonrpc": "2.0", "id": f"ask-{number}", "method": method, "params": {}}
            await stream.write(b"data: %b\n\n" % json.dumps(ask).encode())
        kind = "tools/list_changed" if self.announce_tools else "message"
        note = {"jsonrpc": "2.0", "method": f"notifications/{kind}", "params": {}}
        for event in (note, answer):
            await stream.write(b"event: message\ndata: %b\n\n" % json.dumps(event).encode())
        return stream

    async def _take_up(self, request: web.Request) -> web.StreamResponse:
        self.resumed.append(request.headers["last-event-id"])
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b"data: %b\n\n" % json.dumps(self._late).encode())
        return stream

    async def _misbehave(
        self, request: web.Request, number: Any, fault: Misbehaviour
    ) -> web.StreamResponse:
        match fault.kind:
            case "huge" | "huge_sse":
                return await self._pour(request, sse=fault.kind == "huge_sse", size=fault.size)
            case "cut" | "cut_sse":
                return await self._cut(request, sse=fault.kind == "cut_sse")
            case "reset":
                _reset(request)
                return web.Response()
            case _:
                return _bad_answer(number, fault)

    async def _pour(self, request: web.Request, *, sse: bool, size: int) -> web.StreamResponse:
        kind = "text/event-stream" if sse else "application/json"
        stream = web.StreamResponse(headers={"Content-Type": kind})
        await stream.prepare(request)
        await stream.write(b"data: " if sse else b'{"jsonrpc": "2.0", "x": "')
        while self.poured < size:
            await stream.write(b"x" * 65_536)
            self.poured += 65_536
        return stream

    async def _cut(self, request: web.Request, *, sse: bool) -> web.StreamResponse:
        kind = "text/event-stream" if sse else "application/json"
        stream = web.StreamResponse(headers={"Content-Type": kind})
        await stream.prepare(request)
        await stream.write(b"data: {" if sse else b"{")
        _reset(request)
        return stream


def _place(request: web.Request, number: Any) -> tuple[str, Any]:
    """A request's number is unique within its session only."""
    return request.headers.get("mcp-session-id", ""), number


def _bad_answer(number: Any, fault: Misbehaviour) -> web.Response:
    good = {"jsonrpc": "2.0", "id": number, "result": {"content": []}}
    bad = {"jsonrpc": "2.0", "id": number, "result": {"content": "not a list"}}
    return {
        "status": web.Response(status=fault.size or 500),
        "429": web.Response(status=429, headers={"Retry-After": "7"}),
        "503": web.Response(status=503, headers={"Retry-After": "3"}),
        "redirect": web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}),
        "bad_json": web.Response(text='{"jsonrpc": "2.0",', content_type="application/json"),
        "html": web.Response(text="<html>", content_type="text/html"),
        "accepted": web.Response(status=202),
        "gzip": web.Response(body=b"?", headers={"Content-Encoding": "gzip"}),
        "wrong_id": web.json_response(good | {"id": 999_999}),
        "bad_result": web.json_response(bad),
    }[fault.kind]


def _reset(request: web.Request) -> None:
    """Close the connection with a reset, not an end."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
