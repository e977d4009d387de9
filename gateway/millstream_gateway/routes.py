"""The one table of what can be asked: paths, roles, what goes in and what comes out.

A request is matched against it, a caller's role is checked by it, and the OpenAPI document is
printed from it; so the document cannot say what the server does not do.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp.web import StreamResponse

from millstream_gateway.auth.principals import Role
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import NotAllowed, NotFound
from millstream_gateway.rest.shapes import NoQuery

Handler = Callable[[Call], Awaitable[Reply | StreamResponse]]
_PART = re.compile(r"\{(\w+)\}")


class Form:
    """The body of a route that a form on a page is sent to: its fields, each with its values."""


class LooseJson:
    """A body that may be missing, or be called another kind of JSON; it comes as bytes."""

    MEDIA_TYPES = ("application/json", "application/a2a+json")


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers of a route."""

    meaning: str
    #: The type of its body; None: it has none, or one that no schema describes.
    shape: Any = None
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing that can be asked."""

    method: str
    #: As OpenAPI writes it: ``/runs/{id}``.
    path: str
    name: str
    summary: str
    handler: Handler
    #: None: anybody may ask, without showing who they are.
    needs: Role | None
    answers: Mapping[int, Answer]
    tag: str = "runs"
    query: type[msgspec.Struct] = NoQuery
    #: The type of the body; None: it has none; ``bytes``: whatever JSON is in it; or `LooseJson`.
    body: Any = None
    #: Headers that mean something, beside those of every request.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the answer goes on for as long as there is something to tell.
    streams: bool = False
    #: Whether it is a page: for people who are signed in, and who read no problem documents.
    page: bool = False
    #: Whether it stands in the OpenAPI document.
    described: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, and what stands in its path."""

    route: Route
    path: Mapping[str, str]


class Table:
    """All routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        #: Paths without parts are found at once: most requests are for few of them.
        self._spelt: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            by_path.setdefault(route.path, {})[route.method] = route
        # What is spelt out goes before what is filled in: /runs/batch is no run. And what ends in
        # a verb before what does not: of /tasks/x:cancel the name of the task is x.
        for path in sorted(by_path, key=_order):
            if _PART.search(path):
                self._patterns.append((_pattern(path), by_path[path]))
            else:
                self._spelt[path] = by_path[path]

    def match(self, method: str, path: str) -> Match:
        """Return the route of a raw path. Raises `NotFound` or `NotAllowed`."""
        spelt = self._spelt.get(path)
        if spelt is not None:
            return Match(_route(spelt, method), {})
        for pattern, methods in self._patterns:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            route = _route(methods, method)
            values = {name: _decoded(value) for name, value in found.groupdict().items()}
            return Match(route, values)

        raise NotFound("there is nothing under this path")


def _order(path: str) -> list[str]:
    return [_PART.sub("~", piece) + "~" for piece in path.split("/")]


def _route(methods: Mapping[str, Route], method: str) -> Route:
    asked = "GET" if method == "HEAD" and "HEAD" not in methods else method
    if asked not in methods:
        raise NotAllowed(method[:20], tuple(sorted(methods)))
    return methods[asked]


def _pattern(path: str) -> re.Pattern[str]:
    pieces = _PART.split(path)
    # Every second piece is the name of a part.
    spelt = [
        f"(?P<{piece}>[^/]+)" if number % 2 else re.escape(piece)
        for number, piece in enumerate(pieces)
    ]
    return re.compile("".join(spelt))


def _decoded(value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise NotFound("the path is not in UTF-8") from error
