"""The API with its own description among its routes: ``/api/v1/openapi.json``."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call
from millstream_gateway.rest.answering import BASE
from millstream_gateway.rest.document import document
from millstream_gateway.rest.shapes import encoded
from millstream_gateway.routes import Answer, Route


def routes(api: Sequence[Route]) -> list[Route]:
    """Return the routes and the one that describes them."""
    body = encoded(document(api))

    async def show(_: Call) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return [
        *api,
        Route(
            method="GET",
            path=f"{BASE}/openapi.json",
            name="describeApi",
            summary="This document",
            handler=show,
            needs=Role.VIEWER,
            answers={200: Answer("The document.")},
            described=False,
        ),
    ]
