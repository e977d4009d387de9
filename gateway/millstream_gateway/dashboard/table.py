"""The routes of the pages."""

from __future__ import annotations

from typing import Any

from millstream_gateway.auth.principals import Role
from millstream_gateway.dashboard.deeds import Deeds
from millstream_gateway.dashboard.pages import Pages
from millstream_gateway.dashboard.planning import Planning
from millstream_gateway.dashboard.starting import Starting
from millstream_gateway.dashboard.views import Views
from millstream_gateway.rest import operating_shapes, schedule_shapes, shapes
from millstream_gateway.rest.stream import Streams
from millstream_gateway.routes import Answer, Form, Handler, Route


def routes(pages: Pages, views: Views, deeds: Deeds, streams: Streams) -> list[Route]:
    """Return the routes of the pages."""
    return [
        *_looked_at(pages, views, streams),
        *_sent(deeds),
        *_filled_in(deeds.planning, deeds.starting),
        *_way_in(pages),
    ]


def _looked_at(pages: Pages, views: Views, streams: Streams) -> list[Route]:
    viewer, operator = Role.VIEWER, Role.OPERATOR
    of_queue, link = shapes.OfQueue, operating_shapes.LinkQuery
    return [
        _page("GET", "/", pages.overview, viewer),
        _page("GET", "/runs", pages.runs, viewer, shapes.RunsQuery),
        _page("GET", "/runs/{id}", pages.run, viewer, of_queue),
        _page("GET", "/runs/{id}/events", streams.events, viewer, shapes.EventsQuery, streams=True),
        _page("GET", "/runs/{id}/answer-by-link", views.linked, None, link),
        _page("POST", "/runs/{id}/answer-by-link", views.answered, None, link, body=Form),
        _page("GET", "/questions", views.asked, viewer, shapes.RunsQuery),
        _page("GET", "/schedules", views.planned, viewer, schedule_shapes.SchedulesQuery),
        _page("GET", "/dead", pages.dead, viewer, shapes.RunsQuery),
        _page("GET", "/workers", pages.workers, operator, of_queue),
        _page("GET", "/models", views.models, operator),
    ]


def _sent(deeds: Deeds) -> list[Route]:
    of_queue = shapes.OfQueue
    return [
        _form("/runs/{id}/cancel", deeds.cancel, of_queue),
        _form("/runs/{id}/retry", deeds.retry, of_queue),
        _form("/runs/{id}/fork", deeds.fork, of_queue),
        _form("/runs/{id}/answer", deeds.answer, of_queue),
        _form("/runs/{id}/resolve", deeds.resolve, of_queue),
        _form("/dead/replay", deeds.replay, of_queue),
        _form("/queues/{queue}/pause", deeds.pause),
        _form("/queues/{queue}/resume", deeds.resume),
        _form("/schedules/{name}/pause", deeds.pause_schedule),
        _form("/schedules/{name}/resume", deeds.resume_schedule),
        _form("/schedules/{name}/trigger", deeds.trigger_schedule),
        _form("/schedules/{name}/delete", deeds.delete_schedule),
    ]


def _filled_in(planning: Planning, starting: Starting) -> list[Route]:
    operator, submitter = Role.OPERATOR, Role.SUBMITTER
    return [
        _page("GET", "/schedules/new", planning.new, operator),
        _form("/schedules/new", planning.make),
        _page("GET", "/schedules/{name}/change", planning.show, operator),
        _form("/schedules/{name}/change", planning.change),
        _page("GET", "/enqueue", starting.new, submitter, shapes.OfQueue),
        _page("POST", "/enqueue", starting.start, submitter, body=Form),
    ]


def _way_in(pages: Pages) -> list[Route]:
    return [
        _page("GET", "/login", pages.login, None),
        _page("POST", "/login", pages.sign_in, None, body=Form),
        _page("POST", "/logout", pages.sign_out, Role.VIEWER, body=Form),
        _page("GET", "/static/{name}", pages.static, None),
    ]


def _form(path: str, handler: Handler, query: type[Any] = shapes.NoQuery) -> Route:
    return _page("POST", path, handler, Role.OPERATOR, query, body=Form)


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
