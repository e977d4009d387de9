"""The routes of A2A over HTTP: the card, the JSON-RPC path, and those of HTTP+JSON."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from millstream_gateway.a2a.bindings import base_of
from millstream_gateway.a2a.cards import JSONRPC_PATH, REST_PATH, Cards, as_json
from millstream_gateway.a2a.httpjson import HttpJson
from millstream_gateway.a2a.jsonrpc import JsonRpc
from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call
from millstream_gateway.routes import Answer, Handler, LooseJson, Route

CARD_PATH = "/.well-known/agent-card.json"
#: How long others may believe a card without asking again, in seconds.
_CACHED_S = 60


class AnyQuery(Struct):
    """Whatever stands in the query is read by the operation itself."""


def routes(rpc: JsonRpc, rest: HttpJson, cards: Cards, *, discovery: bool) -> list[Route]:
    """Return all routes. ``discovery``: everybody may fetch the card."""
    asked = [
        ("POST", "/message:send", "send", rest.send),
        ("POST", "/message:stream", "stream", rest.stream),
        ("GET", "/tasks", "tasks", rest.tasks),
        ("GET", "/tasks/{id}", "task", rest.task),
        ("POST", "/tasks/{id}:cancel", "cancel", rest.cancel),
        ("GET", "/tasks/{id}:subscribe", "subscribe", rest.subscribe),
        ("POST", "/tasks/{id}:subscribe", "subscribe", rest.subscribe),
        ("POST", "/tasks/{id}/pushNotificationConfigs", "createPush", rest.create_push),
        ("GET", "/tasks/{id}/pushNotificationConfigs", "pushes", rest.pushes),
        ("GET", "/tasks/{id}/pushNotificationConfigs/{push}", "push", rest.push),
        ("DELETE", "/tasks/{id}/pushNotificationConfigs/{push}", "dropPush", rest.drop_push),
        ("GET", "/extendedAgentCard", "extendedCard", rest.card),
    ]
    return [
        _card_route(cards, discovery=discovery),
        _route("POST", JSONRPC_PATH, "rpc", rpc.answer),
        # Clients that take the address for a folder add a slash.
        _route("POST", f"{JSONRPC_PATH}/", "rpcFolder", rpc.answer),
        *(_route(method, REST_PATH + path, name, handler) for method, path, name, handler in asked),
    ]


def _route(method: str, path: str, name: str, handler: Handler) -> Route:
    return Route(
        method=method,
        path=path,
        name=f"a2a{name[0].upper()}{name[1:]}",
        summary="Speak A2A",
        tag="a2a",
        handler=handler,
        # What an operation needs beyond that, and in which queue, it asks for itself.
        needs=Role.VIEWER,
        query=AnyQuery,
        body=LooseJson,
        answers={200: Answer("A message of A2A.")},
        # Whether a request is answered at once is up to it: it may ask to wait.
        streams=True,
        described=False,
    )


def _card_route(cards: Cards, *, discovery: bool) -> Route:
    async def show(call: Call) -> web.StreamResponse:
        body, tag = as_json(await cards.public(base_of(call)))
        # Which addresses stand in it may depend on the one that was asked.
        headers = {"ETag": tag, "Cache-Control": f"max-age={_CACHED_S}", "Vary": "Host"}
        if not discovery:
            headers["Cache-Control"] = f"private, {headers['Cache-Control']}"
        if _holds(call.request.headers.get("If-None-Match", ""), tag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers, content_type="application/json")

    return Route(
        method="GET",
        path=CARD_PATH,
        name="agentCard",
        summary="Who we are, and what can be asked of us",
        tag="a2a",
        handler=show,
        needs=None if discovery else Role.VIEWER,
        query=AnyQuery,
        answers={200: Answer("The card.")},
        described=False,
    )


def _holds(known: str, tag: str) -> bool:
    """Whether somebody who names some tags has what we would send."""
    tags = {each.strip().removeprefix("W/") for each in known.split(",")}
    return tag in tags or "*" in tags
