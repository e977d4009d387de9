"""The HTTP transport under the SDK's `ClientSession`: one POST a request, on aiohttp.

Promise: the fault of one request ends that request alone, and says whether it was sent; statuses
and Retry-After are kept; answers are bounded while they stream; a cancelled request is cancelled
at the server. It speaks both eras: without sessions (2026), where closing the response cancels,
and with them (2025 and older), where a notification does. It does not know tools or retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from typing import Any

import aiohttp
import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from yarl import URL

from millstream_worker.tools.authorization import Authorization, Challenge
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.egress import check_host
from millstream_worker.tools.exchanges import Exchange, Exchanges, Response
from millstream_worker.tools.faults import Cut, Fault, Malformed, SessionGone
from millstream_worker.tools.messages import (
    Request,
    answers,
    decode,
    encode,
    encode_message,
    read_bounded,
    refusal,
    settle,
)
from millstream_worker.tools.servers import ServerSpec, Web
from millstream_worker.tools.sockets import CONNECT_S, Ticket, faults, open_http, reason_of
from millstream_worker.tools.sse import EventParser

#: What is said after the fact (cancel, end of a session) may take this long and no longer.
COURTESY_S = 2.0
#: How long the end of a stream is waited for after its answer, so that its connection is reused.
_LINGER_S = 0.01

#: How often a stream that a 2025 server closed is taken up again, and after which pauses.
_RESUMPTIONS = 100
_RESUME_PAUSE_S = 1.0
_SHORTEST_PAUSE_S = 0.05

_VERSION = "mcp-protocol-version"
_SESSION = "mcp-session-id"


@asynccontextmanager
async def open_web(
    spec: ServerSpec,
    web: Web,
    redactor: Redactor,
    on_tools_changed: Callable[[], None],
    authorization: Authorization | None = None,
) -> AsyncIterator[WebDispatcher]:
    """Open the transport of a server. Nothing is connected to before the first request."""
    url = URL(redactor.reveal(web.url))
    check_host(url.host or "", allow_private=web.allow_private)
    async with open_http(allow_private=web.allow_private) as http:
        dispatcher = WebDispatcher(
            http,
            url,
            headers=lambda: {k: redactor.reveal(v) for k, v in web.headers.items()},
            authorization=authorization,
            limit=spec.max_answer,
            on_tools_changed=on_tools_changed,
        )
        yield dispatcher
        await dispatcher.end_session()


class WebDispatcher:
    """A `Dispatcher` of the SDK that sends each request as a POST of its own."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: URL,
        *,
        headers: Callable[[], Mapping[str, str]],
        limit: int,
        authorization: Authorization | None = None,
        on_tools_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._authorization = authorization
        self._http = http
        self._url = url
        self._exchanges = Exchanges(http, url)
        self._headers = headers
        self._limit = limit
        self._on_tools_changed = on_tools_changed
        self._ids = count(1)
        #: Present while the session is entered; what outlives its request runs here.
        self._background: TaskGroup | None = None
        self._version: str | None = None
        #: The name of our session at a server of the older era that keeps sessions.
        self.session_id: str | None = None

    async def run(
        self,
        on_request: OnRequest,  # noqa: ARG002  the SDK's signature
        on_notify: OnNotify,  # noqa: ARG002
        on_notify_intercept: OnNotifyIntercept | None = None,  # noqa: ARG002
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hold the background group open until the session is left."""
        async with anyio.create_task_group() as background:
            self._background = background
            task_status.started()
            await anyio.sleep_forever()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request and return its result, or raise the `Fault` that ended it."""
        opts = opts or {}
        number = next(self._ids)
        request = Request(number, method, encode(method, params, id=number))
        stamped = opts.get("headers", {})
        modern = stamped.get(_VERSION) in MODERN_PROTOCOL_VERSIONS
        self._version = stamped.get(_VERSION)

        ticket = Ticket()
        answered = False
        try:
            # A time-out of asyncio costs a third of a scope's, and this is around every call.
            with faults(ticket):
                async with asyncio.timeout(opts.get("timeout")):
                    message = await self._exchange(request, stamped, ticket, modern=modern)
            answered = True
        finally:
            # At a 2026 server the closed response has said it already.
            abandoned = ticket.sent and not answered and not modern
            if abandoned and opts.get("cancel_on_abandon", True):
                self._in_background(self._cancel_at_server, request.id)

        return settle(message, modern=modern)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Send a notification. The 2026 wire has none from client to server."""
        stamped = (opts or {}).get("headers", {})
        if stamped.get(_VERSION) in MODERN_PROTOCOL_VERSIONS:
            return
        ticket = Ticket()
        with faults(ticket), anyio.fail_after(CONNECT_S):
            async with self._post(encode(method, params), stamped, ticket) as response:
                if response.status >= 400:
                    raise await refusal(response)

    async def end_session(self) -> None:
        """Tell a server that keeps sessions that ours is over."""
        if self.session_id is None:
            return
        with anyio.move_on_after(COURTESY_S, shield=True):
            await self._courtesy("DELETE", b"")

    # -- one request ---------------------------------------------------------------------------

    async def _exchange(
        self, request: Request, stamped: Mapping[str, str], ticket: Ticket, *, modern: bool
    ) -> dict[str, Any]:
        async with self._post(request.body, stamped, ticket) as response:
            if response.status != 200:
                raise self._reading_of(await refusal(response), response.status)
            if request.method == "initialize":
                self.session_id = response.headers.get(_SESSION)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise Malformed("its answer is compressed, which was not asked for")

            match response.content_type:
                case "application/json":
                    message = decode(await read_bounded(response, self._limit))
                    if not answers(message, request):
                        raise Malformed("its answer belongs to another request")
                    return message
                case "text/event-stream":
                    stream = EventParser(self._limit)
                    found = await self._answer_in(response, stream, request, modern=modern)
                case other:
                    raise Malformed(f"its answer is of type {other}")

        if found is None and not modern and stream.last_id is not None:
            found = await self._resume(stream, request, stamped)
        if found is None:
            raise Cut("its stream ended without an answer")
        return found

    async def _answer_in(
        self,
        response: Response,
        stream: EventParser,
        request: Request,
        *,
        modern: bool,
    ) -> dict[str, Any] | None:
        """Return the answer in a stream of events; None where it ends or is cut before."""
        try:
            async for chunk in response.content.iter_any():
                for event in stream.feed(chunk):
                    message = decode(event.data)
                    if answers(message, request):
                        await _linger(response)
                        return message
                    self._take_other(message, modern=modern)
        except (aiohttp.ClientError, OSError) as error:
            # A stream of the older era may be taken up again, if it named its events.
            if modern or stream.last_id is None:
                raise Cut(f"its stream was cut ({reason_of(error)})") from error

        return None

    async def _resume(
        self, stream: EventParser, request: Request, stamped: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Take a cut stream up where it ended; the deadline of the request goes on."""
        for _ in range(_RESUMPTIONS):
            pause_s = _RESUME_PAUSE_S if stream.retry_s is None else stream.retry_s
            await anyio.sleep(max(_SHORTEST_PAUSE_S, pause_s))
            headers = self._all_headers(stamped) | {"last-event-id": stream.last_id or ""}
            again = EventParser(self._limit)
            again.last_id, again.retry_s = stream.last_id, stream.retry_s
            async with self._exchanges.request("GET", headers, b"", Ticket()) as response:
                if response.status != 200 or response.content_type != "text/event-stream":
                    return None
                found = await self._answer_in(response, again, request, modern=False)
            if found is not None:
                return found
            stream = again

        return None

    def _take_other(self, message: dict[str, Any], *, modern: bool) -> None:
        """Take what a stream carries beside the answer."""
        if message.get("method") == "notifications/tools/list_changed":
            self._on_tools_changed()
        elif "method" in message and "id" in message and not modern:
            self._in_background(self._answer_server, message)

    def _reading_of(self, refused: Fault, status: int) -> Fault:
        """Return what a refusal means to a client that has a session."""
        if self.session_id is None:
            return refused
        if status == 404 or (status == 400 and "session" in str(refused).lower()):
            return SessionGone(str(refused))
        return refused

    # -- beside the requests -------------------------------------------------------------------

    async def _cancel_at_server(self, number: int) -> None:
        params = {"requestId": number, "reason": "the caller gave up"}
        with anyio.move_on_after(COURTESY_S):
            await self._courtesy("POST", encode("notifications/cancelled", params))

    async def _answer_server(self, message: dict[str, Any]) -> None:
        """Answer a request of the server: we live, and offer nothing else."""
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "ping":
            reply["result"] = {}
        else:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        with anyio.move_on_after(COURTESY_S):
            await self._courtesy("POST", encode_message(reply))

    async def _courtesy(self, verb: str, body: bytes) -> None:
        """Send what nobody waits for. If it fails, the server will find out in another way."""
        stamped = {} if self._version is None else {_VERSION: self._version}
        headers = self._all_headers(stamped)
        try:
            async with self._exchanges.request(verb, headers, body, Ticket()):
                pass
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass

    def _in_background(self, what: Callable[..., Any], *args: Any) -> None:
        if self._background is not None:
            self._background.start_soon(what, *args)

    # -- the wire ------------------------------------------------------------------------------

    def _post(
        self, body: bytes, stamped: Mapping[str, str], ticket: Ticket
    ) -> AbstractAsyncContextManager[Response]:
        if self._authorization is None:
            return self._post_once(body, stamped, ticket)
        return self._authorized(self._authorization, body, stamped, ticket)

    @asynccontextmanager
    async def _authorized(
        self,
        authorization: Authorization,
        body: bytes,
        stamped: Mapping[str, str],
        ticket: Ticket,
    ) -> AsyncIterator[Response]:
        token = self._token()
        async with self._post_once(body, stamped, ticket) as response:
            challenge = Challenge.of(response)
            if challenge is None:
                yield response
                return

        # It was not let in, so it was not executed: with a token it is sent again.
        ticket.sent = False
        await authorization.renew(self._http, self._url, challenge, token)
        async with self._post_once(body, stamped, ticket) as response:
            yield response

    def _post_once(self, body: bytes, stamped: Mapping[str, str], ticket: Ticket) -> Exchange:
        return self._exchanges.request("POST", self._all_headers(stamped), body, ticket)

    def _token(self) -> Mapping[str, str]:
        return {} if self._authorization is None else self._authorization.headers

    def _all_headers(self, stamped: Mapping[str, str]) -> dict[str, str]:
        headers = {
            **self._headers(),
            **self._token(),
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
            **stamped,
        }
        if self.session_id is not None:
            headers[_SESSION] = self.session_id
        return headers


async def _linger(response: Response) -> None:
    """Read the end of a stream where it has come already. The answer stands, whatever happens."""
    with suppress(aiohttp.ClientError, OSError), anyio.move_on_after(_LINGER_S):
        await response.content.readany()
