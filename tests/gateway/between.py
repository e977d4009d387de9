"""Stands between an agent and whoever calls it: loses answers, and says when a message comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

CARD = "/.well-known/agent-card.json"


@dataclass(slots=True)
class Between:
    """What has come by, and what is done to it."""

    url: str = ""
    #: Methods in the order in which they were asked for.
    asked: list[str] = field(default_factory=list)
    #: Answers to messages that are lost, once the message was delivered.
    lose: int = 0
    #: Statuses that are answered instead of delivering a message.
    refuse: list[int] = field(default_factory=list)
    #: The same, of cancellations.
    refuse_cancels: list[int] = field(default_factory=list)
    #: Changes cards on their way.
    card: Callable[[bytes], bytes] = lambda body: body
    #: Told when a message was delivered, before its answer goes back.
    delivered: Callable[[], None] = lambda: None

    @property
    def sent(self) -> int:
        """How many messages were delivered."""
        return self.asked.count("SendMessage")


@asynccontextmanager
async def between(base: str) -> AsyncIterator[Between]:
    """Pass on whatever is asked of an agent, for this block."""
    state = Between()
    async with aiohttp.ClientSession(auto_decompress=False) as http:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            method = msgspec.json.decode(body)["method"] if body else request.rel_url.path
            if method == "SendMessage" and state.refuse:
                return web.Response(status=state.refuse.pop(0))
            state.asked.append(method)
            if method == "CancelTask" and state.refuse_cancels:
                return web.Response(status=state.refuse_cancels.pop(0))
            async with http.request(
                request.method, f"{base}{request.rel_url}", data=body, headers=request.headers
            ) as found:
                content = await found.read()
                answered = web.Response(
                    status=found.status,
                    body=content if method != CARD else state.card(content),
                    headers={
                        name: found.headers[name]
                        for name in ("Content-Type", "ETag")
                        if name in found.headers
                    },
                )
            if method == "SendMessage":
                state.delivered()
                if state.lose:
                    state.lose -= 1
                    assert request.transport is not None
                    request.transport.abort()
            return answered

        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield state
        finally:
            await runner.cleanup()
