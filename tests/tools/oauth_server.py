"""An authorization server, and an MCP server that lets nobody in without its tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.tools.fault_http import FaultHttp

CLIENT, SECRET, REFRESH = "worker-7", "s3cr3t/0f+worker", "r3fr3sh-0f-a-pers0n"


class OAuthServer:
    """The authorization server: metadata, and tokens for whoever shows what it knows."""

    def __init__(self) -> None:
        self.port = 0
        #: What was asked of the token endpoint, in order.
        self.asked: list[dict[str, str]] = []
        #: Tokens that are good, each with its scope.
        self.good: dict[str, str] = {}
        self.lives_s: int | None = 3600
        #: Give another refresh token with each access token, and know only the last one.
        self.rotates = False
        self.refresh_token = REFRESH
        self.secret = SECRET
        #: Answers that are not what they should be.
        self.issuer_says: str | None = None
        self.status = 200
        self._numbers = count(1)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/tenant"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[OAuthServer]:
        app = web.Application()
        app.router.add_get("/.well-known/oauth-authorization-server/tenant", self._metadata)
        app.router.add_post("/token", self._token)
        async with _served(app) as port:
            self.port = port
            yield self

    async def _metadata(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer_says or self.issuer,
                "authorization_endpoint": f"http://127.0.0.1:{self.port}/authorize",
                "token_endpoint": f"http://127.0.0.1:{self.port}/token",
                "response_types_supported": ["code"],
            }
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append(form)
        if self.status != 200:
            return web.Response(status=self.status)
        if not self._knows(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        answer: dict[str, Any] = {"token_type": "Bearer"}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh_token:
                return web.json_response({"error": "invalid_grant"}, status=400)
            if self.rotates:
                self.refresh_token = f"rotated-{next(self._numbers)}"
                answer["refresh_token"] = self.refresh_token
        token = f"t0k3n-{next(self._numbers)}"
        # What a person has granted is said nowhere, and stands.
        self.good[token] = form.get("scope", "tools")
        answer["access_token"] = token
        if self.lives_s is not None:
            answer["expires_in"] = self.lives_s
        return web.json_response(answer)

    def _knows(self, request: web.Request, form: dict[str, str]) -> bool:
        """Whether a client is who it says, by the header or by the body."""
        if "client_secret" in form:
            return (form["client_id"], form["client_secret"]) == (CLIENT, self.secret)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return False
        name, _, secret = base64.b64decode(given).decode().partition(":")
        return (unquote(name), unquote(secret)) == (CLIENT, self.secret)


class Guarded(FaultHttp):
    """The fault server behind a door."""

    def __init__(self, authority: OAuthServer, **options: Any) -> None:
        super().__init__(**options)
        self.authority = authority
        #: The scope without which a call is refused.
        self.scope = "tools"
        #: Where its metadata says that tokens are to be had.
        self.leads_to: str | None = None
        self.refused = 0
        #: The tokens that were refused, empty where there was none.
        self.tokens: list[str] = []

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[FaultHttp]:
        app = web.Application()
        app.router.add_route("*", "/mcp", self.handle)
        app.router.add_get("/.well-known/oauth-protected-resource/mcp", self._metadata)
        async with _served(app) as found:
            self.port = found
            yield self

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.authority.good:
            self.refused += 1
            self.tokens.append(token)
            return self._challenge(401, f'scope="{self.scope}"')
        granted = self.authority.good[token].split()
        body = await request.read()
        if b'"tools/call"' in body and self.scope not in granted:
            return self._challenge(403, f'error="insufficient_scope", scope="{self.scope}"')
        return await super().handle(request)

    def _challenge(self, status: int, says: str) -> web.Response:
        where = f"http://127.0.0.1:{self.port}/.well-known/oauth-protected-resource/mcp"
        header = f'Bearer resource_metadata="{where}", {says}'
        return web.Response(status=status, headers={"WWW-Authenticate": header})

    async def _metadata(self, _: web.Request) -> web.Response:
        servers = [self.leads_to or self.authority.issuer]
        document = {"resource": self.url, "authorization_servers": servers}
        return web.Response(text=json.dumps(document), content_type="application/json")


@asynccontextmanager
async def _served(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
