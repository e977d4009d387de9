"""HTTP of the Kubernetes metrics API: paths, refusals, and who may pass.

Promise: what is not known is a 503 and never a number; what is asked causes no call of Redis;
values are for callers whom the API server vouches for and whom a review lets pass. Discovery is for
everybody: it holds nothing but names, and must be right when all else is away.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web

from millstream.errors import (
    BadSelector,
    KubernetesUnavailable,
    MillstreamError,
    NoSuchQueue,
    StaleReading,
)
from millstream.events import Emit, MetricAsked
from millstream_scheduler.readings import Readings
from millstream_scheduler.scaling import documents, figures, selectors
from millstream_scheduler.scaling.documents import CUSTOM, EXTERNAL, OBJECTS, PLAIN, VERSIONS
from millstream_scheduler.scaling.figures import FIGURES, Figure
from millstream_scheduler.scaling.front_proxy import FrontProxy
from millstream_scheduler.scaling.reviews import Request, Reviews

_Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]
#: Bytes of a request's body: there is none.
_BODY = 1024


class Refused(MillstreamError):
    """A request is not answered; ``status`` says what kind of no it is.

    ``leaves``: its connection is closed, and another one may do.
    """

    def __init__(self, status: HTTPStatus, message: str, *, leaves: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.leaves = leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServer:
    """The paths and what they answer. ``application`` is what is served."""

    readings: Readings
    reviews: Reviews
    #: None as long as nobody knows whose word counts.
    proxy: Callable[[], FrontProxy | None]
    #: Whether a connection has outlived what its client has shown: see `Certificates.outlived`.
    outlived: Callable[[ssl.SSLObject, float], bool]
    emit: Emit
    wall: Callable[[], datetime]

    def application(self) -> web.Application:
        """Return what a server serves."""
        app = web.Application(middlewares=[_refusing], client_max_size=_BODY)
        for path in ("/livez", "/readyz", "/healthz"):
            app.router.add_get(path, _fine)
        app.router.add_get("/apis", _groups)
        app.router.add_get("/apis/{group}", _group)
        app.router.add_get("/apis/{group}/{version}", _resources)
        app.router.add_get(
            f"/apis/{EXTERNAL}/v1beta1/namespaces/{{namespace}}/{{metric}}", self._external
        )
        for version in VERSIONS[CUSTOM]:
            app.router.add_get(
                f"/apis/{CUSTOM}/{{version:{version}}}/namespaces/{{namespace}}"
                "/{resource}/{name}/{metric}",
                self._custom,
            )
        return app

    # -- values --------------------------------------------------------------------------------

    async def _external(self, asked: web.Request) -> web.StreamResponse:
        """Answer for every queue that the selector means; the reader adds them up."""

        async def answer(figure: Figure) -> documents.Document:
            part = asked.match_info
            # A name is missing in this path, and what has no name is listed.
            await self._admit(
                asked,
                Request(
                    verb="list",
                    group=EXTERNAL,
                    version="v1beta1",
                    namespace=part["namespace"],
                    resource=figure.name,
                ),
            )
            selector = selectors.parse(asked.query.get("labelSelector", ""))
            found = figures.values(self.readings, figure, selector)
            return documents.external(figure.name, found, self.wall())

        return await self._told(EXTERNAL, asked, answer)

    async def _custom(self, asked: web.Request) -> web.StreamResponse:
        """Answer with one value, said to belong to the object that the caller describes."""

        async def answer(figure: Figure) -> documents.Document:
            part = asked.match_info
            described = _described(part)
            await self._admit(
                asked,
                Request(
                    verb="get",
                    group=CUSTOM,
                    version=part["version"],
                    namespace=described.namespace,
                    resource=described.resource,
                    subresource=figure.name,
                    name=described.name,
                ),
            )
            text = asked.query.get("metricLabelSelector", "")
            found = figures.values(self.readings, figure, selectors.parse(text))
            whole = figures.total(figure, found)
            return documents.custom(
                part["version"], figure.name, text, described, whole, self.wall()
            )

        return await self._told(CUSTOM, asked, answer)

    async def _told(
        self,
        group: str,
        asked: web.Request,
        answer: Callable[[Figure], Awaitable[documents.Document]],
    ) -> web.StreamResponse:
        """Answer, and tell of it."""
        name, status = asked.match_info["metric"], HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            if (figure := FIGURES.get(name)) is None:
                known = documents.listed(FIGURES)
                raise Refused(HTTPStatus.NOT_FOUND, f"no metric {name[:100]!r}; there are {known}")
            document = await answer(figure)
            status = HTTPStatus.OK
            return _json(document)
        except MillstreamError as error:
            status = _status(error)
            raise
        finally:
            self.emit(MetricAsked(group=group, metric=name[:100], status=int(status)))

    async def _admit(self, asked: web.Request, wanted: Request) -> None:
        """Let a caller pass who is known, and who may."""
        proxy = self.proxy()
        if proxy is None:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "it is not known yet which front proxy to believe; the API server has not said",
            )
        caller = proxy.caller(self._certificate(asked), asked.headers)
        if caller is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "ask through the API server; its front proxy vouches for callers",
            )
        if not await self.reviews.allowed(caller, wanted):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"{caller.name} may not {wanted.verb} {wanted.resource}"
                f"{'/' * bool(wanted.subresource)}{wanted.subresource} of {wanted.group}"
                f" in namespace {wanted.namespace}; grant it with a role",
            )

    def _certificate(self, asked: web.Request) -> Mapping[str, Any] | None:
        """Return what the client has shown. Raises `Refused` where that counts no more."""
        transport = asked.transport
        shown: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport else None
        if shown is None:
            return None
        if self.outlived(shown, self.wall().timestamp()):
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "what this connection was opened with counts no more; open another one",
                leaves=True,
            )
        return shown.getpeercert()


def _described(part: web.UrlMappingMatchInfo) -> documents.Described:
    if part["resource"] not in OBJECTS:
        raise Refused(
            HTTPStatus.NOT_FOUND, f"metrics belong to {documents.listed(OBJECTS)} here, by name"
        )
    if part["name"] == "*":
        raise Refused(HTTPStatus.BAD_REQUEST, "name the object instead of *")
    return documents.Described(
        namespace=part["namespace"], resource=part["resource"], name=part["name"]
    )


# -- discovery ---------------------------------------------------------------------------------


async def _groups(asked: web.Request) -> web.StreamResponse:
    version = documents.discovery_version(asked.headers.get("Accept", ""))
    if version is None:
        raise Refused(HTTPStatus.NOT_ACCEPTABLE, "discovery is served as v2, v2beta1 or plain JSON")

    answer = _json(documents.groups(version), documents.discovery_type(version))
    answer.headers["Vary"] = "Accept"
    tag = f'"{hashlib.sha256(_body(answer)).hexdigest()[:32]}"'
    answer.headers["ETag"] = tag
    if tag in asked.headers.get("If-None-Match", ""):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag, "Vary": "Accept"})
    return answer


async def _group(asked: web.Request) -> web.StreamResponse:
    return _json(documents.group(_known(asked)))


async def _resources(asked: web.Request) -> web.StreamResponse:
    group, version = _known(asked), asked.match_info["version"]
    if version not in VERSIONS[group]:
        raise Refused(HTTPStatus.NOT_FOUND, f"{group} has {documents.listed(VERSIONS[group])}")
    return _json(documents.resources(group, version))


def _known(asked: web.Request) -> str:
    group = asked.match_info["group"]
    if group not in VERSIONS:
        raise Refused(HTTPStatus.NOT_FOUND, f"the groups are {documents.listed(VERSIONS)}")
    return group


async def _fine(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


# -- details -----------------------------------------------------------------------------------


@web.middleware
async def _refusing(request: web.Request, handler: _Answers) -> web.StreamResponse:
    """Make a document of every refusal."""
    leaves = False
    try:
        return await handler(request)
    except MillstreamError as error:
        status, message = _status(error), str(error)
        leaves = isinstance(error, Refused) and error.leaves
    except web.HTTPException as error:
        status, message = HTTPStatus(error.status), error.reason
    answer = _json(documents.refusal(status, message), status=status)
    if leaves:
        answer.force_close()
    return answer


def _status(error: MillstreamError) -> HTTPStatus:
    match error:
        case Refused():
            return error.status
        case BadSelector():
            return HTTPStatus.BAD_REQUEST
        case NoSuchQueue():
            return HTTPStatus.NOT_FOUND
        case StaleReading() | KubernetesUnavailable():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR


def _json(
    document: documents.Document, content_type: str = PLAIN, status: int = HTTPStatus.OK
) -> web.Response:
    # As a header: aiohttp would add a charset, which this type does not have.
    return web.Response(
        body=json.dumps(document).encode(),
        status=status,
        headers={"Content-Type": content_type, "Cache-Control": "no-cache, private"},
    )


def _body(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""
