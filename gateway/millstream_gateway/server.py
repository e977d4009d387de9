"""Answer one request: find its route, its caller and its body, call the handler, tell of it.

Promise: every request gets one answer within a bounded time (streams say when they end), an error
is a document and never a traceback, and what was answered is told once, under the route's
template: no path of a stranger becomes the name of anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from millstream.errors import said
from millstream.events import Emit, RequestServed
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.auth.rates import Rates
from millstream_gateway.calls import Call, Reply, check_head, decoded, filled_in, queried, read_body
from millstream_gateway.problems import answer_of
from millstream_gateway.refusals import Forbidden, Malformed, Unavailable
from millstream_gateway.rest.shapes import encoded
from millstream_gateway.routes import Form, LooseJson, Route, Table
from millstream_gateway.writing import HEADERS, UNKEPT, Documents

_FORM = "application/x-www-form-urlencoded"
_FORM_BYTES = 256 * 1024
#: What is told of a request that no route was found for.
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NOBODY = Principal(name="nobody")


class Admits(Protocol):
    """Knows who sent a request."""

    async def admit(self, request: web.BaseRequest) -> Principal:
        """Return who it is. Raises `Refused`."""


class Receives(Protocol):
    """Knows the person behind a request for a page."""

    async def admit(self, request: web.BaseRequest) -> Principal:
        """Return who is signed in. Raises `Refused`."""

    def check_form(
        self, request: web.BaseRequest, principal: Principal, form: Mapping[str, Sequence[str]]
    ) -> None:
        """Raise `Refused` for a form that did not come from one of our pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one request may take."""

    #: Bytes of a body, and seconds until it is here.
    body: int
    body_s: float
    #: Seconds until there is an answer, unless the route streams or waits.
    answer_s: float


@dataclass(slots=True)
class _Noted:
    """What is told of a request, as far as it came."""

    endpoint: str = UNMATCHED
    streamed: bool = False
    page: bool = False
    actor: str = _NOBODY.name
    error: str | None = None


class Api:
    """What the HTTP server calls."""

    def __init__(
        self,
        table: Table,
        guard: Admits,
        rates: Rates,
        served: Sequence[str],
        bounds: Bounds,
        *,
        visitors: Receives,
        tell_person: Callable[[Exception], web.StreamResponse],
        emit: Emit,
        mono: Callable[[], float],
        wall: Callable[[], float],
        check_connection: Callable[[web.BaseRequest], None] | None = None,
    ) -> None:
        self._documents = Documents(wall)
        self._table = table
        self._guard = guard
        self._rates = rates
        self._served = tuple(served)
        self._bounds = bounds
        self._visitors = visitors
        self._tell_person = tell_person
        self._emit = emit
        self._mono = mono
        #: Raises `Refused` where its client is believed no more.
        self._check_connection = check_connection
        #: Requests that are being answered.
        self.busy = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        began = self._mono()
        noted = _Noted()
        self.busy += 1
        try:
            answer = await self._answer(request, noted)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            answer = self._tell_person(error) if noted.page else answer_of(error)
            if answer.status == 500:
                noted.error = f"{type(error).__name__}: {said(error)}"
        finally:
            self.busy -= 1
        if not answer.prepared:
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            answer.headers.setdefault(*UNKEPT)
        self._emit(
            RequestServed(
                method=request.method if request.method in _METHODS else "other",
                endpoint=noted.endpoint,
                status=answer.status,
                took_s=self._mono() - began,
                streamed=noted.streamed,
                actor=noted.actor,
                error=noted.error,
            )
        )
        return answer

    async def _answer(self, request: web.BaseRequest, noted: _Noted) -> web.StreamResponse:
        if self._check_connection is not None:
            self._check_connection(request)
        check_head(request)
        match = self._table.match(request.method, request.rel_url.raw_path)
        route = match.route
        noted.endpoint, noted.streamed, noted.page = route.path, route.streams, route.page
        principal = await self._admitted(request, route)
        noted.actor = principal.name
        call = Call(
            request=request,
            principal=principal,
            needs=route.needs or Role.VIEWER,
            served=self._served,
            path=match.path,
            query=queried(request, route.query, drop_blank=route.page),
            body=await self._body(request, route, principal),
        )
        if route.streams:
            return self._as_response(request, await route.handler(call))
        try:
            # Not anyio's: its scopes cost a tenth of all that a small request takes.
            async with asyncio.timeout(self._bounds.answer_s):
                return self._as_response(request, await route.handler(call))
        except TimeoutError as error:
            raise Unavailable("it took too long; ask again") from error

    async def _admitted(self, request: web.BaseRequest, route: Route) -> Principal:
        if route.needs is None:
            return _NOBODY
        asks = self._visitors if route.page else self._guard
        principal = await asks.admit(request)
        self._rates.take(principal.name)
        if not principal.may_somewhere(route.needs):
            raise Forbidden(f"you have not the role {route.needs.name.lower()}")
        return principal

    async def _body(self, request: web.BaseRequest, route: Route, principal: Principal) -> Any:
        if route.body is None:
            if request.body_exists and request.content_length != 0:
                await self._nothing(request)
            return None
        if route.body is Form:
            data = await read_body(request, _FORM_BYTES, self._bounds.body_s, _FORM)
            form = filled_in(data)
            self._visitors.check_form(request, principal, form)
            return form
        if route.body is LooseJson:
            if not request.body_exists:
                return b""
            kinds = LooseJson.MEDIA_TYPES
            return await read_body(request, self._bounds.body, self._bounds.body_s, *kinds)
        data = await read_body(request, self._bounds.body, self._bounds.body_s)
        return data if route.body is bytes else decoded(data, route.body)

    async def _nothing(self, request: web.BaseRequest) -> None:
        """Take an empty object for no body; refuse any other."""
        data = await read_body(request, 100, self._bounds.body_s)
        if data.strip() not in {b"", b"{}"}:
            raise Malformed("there is no body to be given here")

    def _as_response(
        self, request: web.BaseRequest, reply: Reply | web.StreamResponse
    ) -> web.StreamResponse:
        if isinstance(reply, web.StreamResponse):
            return reply
        body = encoded(reply.value)
        if reply.headers is None:
            return self._documents.of(request, reply.status, body)
        return web.Response(
            body=body,
            status=reply.status,
            headers=reply.headers,
            content_type="application/json",
        )
