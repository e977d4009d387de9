"""The routes of the pages."""

from __future__ import annotations

from typing import Any

from millstream_gateway.auth.principals import Role
from millstream_gateway.dashboard.pages import Pages
from millstream_gateway.rest import shapes
from millstream_gateway.rest.stream import Streams
from millstream_gateway.routes import Answer, Form, Handler, Route


def routes(pages: Pages, streams: Streams) -> list[Route]:
    """Return the routes of the pages."""
    viewer, operator = Role.VIEWER, Role.OPERATOR
    of_queue = shapes.OfQueue
    return [
        _page("GET", "/", pages.overview, viewer),
        _page("GET", "/runs", pages.runs, viewer, shapes.RunsQuery),
        _page("GET", "/runs/{id}", pages.run, viewer, of_queue),
        _page("GET", "/runs/{id}/events", streams.events, viewer, shapes.EventsQuery, streams=True),
        _page("POST", "/runs/{id}/cancel", pages.cancel, operator, of_queue, body=Form),
        _page("POST", "/runs/{id}/retry", pages.retry, operator, of_queue, body=Form),
        _page("GET", "/dead", pages.dead, viewer, shapes.RunsQuery),
        _page("POST", "/dead/replay", pages.replay, operator, of_queue, body=Form),
        _page("GET", "/workers", pages.workers, operator, of_queue),
        _page("GET", "/login", pages.login, None),
        _page("POST", "/login", pages.sign_in, None, body=Form),
        _page("POST", "/logout", pages.sign_out, viewer, body=Form),
        _page("GET", "/static/{name}", pages.static, None),
    ]


def _page(
    method: str,
    path: str,
    handler: Handler,
    needs: Role | None,
    query: type[Any] = shapes.NoQuery,
    **more: Any,
) -> Route:
    return Route(
        method=method,
        path=path,
        name=f"{method} {path}",
        summary="",
        tag="pages",
        handler=handler,
        needs=needs,
        query=query,
        answers={200: Answer("A page.", None, "text/html")},
        described=False,
        page=True,
        **more,
    )
