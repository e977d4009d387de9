"""A server that speaks the OpenAI protocol, with the moods that real ones have."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import web

Answer = Callable[[web.Request, dict[str, Any]], Any]


class FakeServer:
    """Answers with the input; what is in ``moods`` comes first, one a request."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.idempotency_keys: list[str] = []
        self.moods: deque[Answer] = deque()
        self.running = 0
        self.most_running = 0
        self.broken_off = 0
        #: More than so many at once are refused.
        self.capacity = 10_000
        #: Held before answering, where set.
        self.hold: anyio.Event | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        self.idempotency_keys.append(request.headers.get("Idempotency-Key", ""))
        if self.running >= self.capacity:
            return web.json_response({"error": "busy"}, status=429)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.moods:
                found = await self.moods.popleft()(request, body)
                assert isinstance(found, web.StreamResponse)
                return found
            if self.hold is not None:
                await self.hold.wait()
            else:
                await anyio.sleep(0.001)
            return await self._answer(request, body)
        except BaseException:
            self.broken_off += 1
            raise
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if request.path.endswith("/embeddings"):
            if any(text == "bad" for text in body["input"]):
                return web.json_response({"error": {"message": "bad input"}}, status=400)
            rows = [
                {"index": n, "embedding": [float(len(text)), 0.5]}
                for n, text in enumerate(body["input"])
            ]
            return web.json_response({"data": rows[::-1]})
        if request.path.endswith("/chat/completions"):
            text = "you said " + body["messages"][-1]["content"]
            if body.get("stream"):
                return await stream(request, text)
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": {"total_tokens": 7}})
        return web.json_response(
            {"choices": [{"text": body["prompt"] + "...", "finish_reason": "length"}]}
        )


async def stream(request: web.Request, text: str, *, whole: bool = True) -> web.StreamResponse:
    """Send a text word by word; without the last word of the protocol unless ``whole``."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in text.split(" "):
        delta = {"choices": [{"delta": {"content": word + " "}}]}
        await response.write(f"data: {json.dumps(delta)}\r\n\r\n: a comment\n\n".encode())
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"total_tokens": 9}}
    if whole:
        await response.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
    return response


def deltas(*found: dict[str, Any]) -> Answer:
    """A mood: send these pieces of a message."""

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta in found:
            event = {"choices": [{"delta": delta}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer


def refusing(status: int, **headers: str) -> Answer:
    """A mood: refuse."""

    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=f"no, {request.path}", headers=given)

    return answer


@asynccontextmanager
async def running() -> AsyncIterator[FakeServer]:
    """Serve on a free port of the loopback."""
    fake = FakeServer()
    app = web.Application()
    app.router.add_post("/{tail:.*}", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}/v1"
    try:
        yield fake
    finally:
        await runner.cleanup()
