"""The pages of queues, runs, dead letters and workers, and the way in. The API does the work."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from typing import Any

from aiohttp import web

from millstream.client import Client
from millstream.errors import MillstreamError, Unaudited, said
from millstream.model.run import RunState
from millstream_gateway.auth.principals import ALL, Principal, Role
from millstream_gateway.calls import Call
from millstream_gateway.dashboard import timeline
from millstream_gateway.dashboard.flow import Flow
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.dashboard.views import seen
from millstream_gateway.dashboard.visitors import Visitors, to
from millstream_gateway.problems import answer_of
from millstream_gateway.refusals import NotFound, Unauthenticated
from millstream_gateway.rest import shapes
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.runs import Runs

_STATIC = {
    "htmx.min.js": "text/javascript",
    "live.js": "text/javascript",
    "page.css": "text/css",
    "htmx.LICENSE": "text/plain",
}
_NOBODY = Principal(name="")


class Pages:
    """The handlers."""

    def __init__(  # noqa: PLR0917 - what the pages are made of
        self,
        client: Client,
        runs: Runs,
        queues: Queues,
        visitors: Visitors,
        rendering: Rendering,
        flow: Flow,
    ) -> None:
        self._client = client
        self._runs = runs
        self._queues = queues
        self._visitors = visitors
        self._rendering = rendering
        self._flow = flow
        folder = resources.files("millstream_gateway.dashboard").joinpath("static")
        self._files = {name: folder.joinpath(name).read_bytes() for name in _STATIC}

    # -- look ----------------------------------------------------------------------------------

    async def overview(self, call: Call) -> web.Response:
        """Show the queues, and how fast runs come and go."""
        depths = {name: await self._client.depth(name) for name in seen(call)}
        queues = [await self._queues.viewed(name, depth) for name, depth in depths.items()]
        paces = {
            name: self._flow.look(name, depth.added, depth.gone) for name, depth in depths.items()
        }
        turns = call.principal.tenant in {None, ALL}
        return self._rendering.page(
            "overview",
            call.principal,
            queues=queues,
            paces=paces,
            may=lambda queue: turns and call.principal.may(Role.OPERATOR, queue),
        )

    async def runs(self, call: Call) -> web.Response:
        """Show runs, by the filters of the query."""
        found: shapes.RunList = (await self._runs.list(call)).value
        return self._rendering.page(
            "runs",
            call.principal,
            queue=call.queue(call.query.queue),
            queues=seen(call),
            states=list(RunState),
            query=call.query,
            runs=found.runs,
            next=found.next,
        )

    async def run(self, call: Call) -> web.Response:
        """Show one run: where it is, what it was given, and its steps in the order they began."""
        run, status = await self._runs.visible(call)
        journal = await self._client.journal(run)
        end = None
        if status.state.final:
            end = (await self._runs.result(replace(call, query=_at_once(run.queue)))).value
        return self._rendering.page(
            "run",
            call.principal,
            run=shapes.view(status),
            arguments=await self._client.arguments(run),
            timeline=timeline.drawn(status, journal, self._rendering.now()),
            end=end,
            parent=_parted(status.parent, "/"),
            forked_from=_parted(status.forked_from, " at "),
            may=call.principal.may(Role.OPERATOR, run.queue),
        )

    async def dead(self, call: Call) -> web.Response:
        """Show the dead letters of a queue."""
        queue = call.queue(call.query.queue)
        query: shapes.RunsQuery = call.query
        asked = shapes.DeadQuery(
            workflow=query.workflow, cause=query.cause, limit=query.limit, cursor=query.cursor
        )
        found = (await self._queues.dead(replace(call, path={"queue": queue}, query=asked))).value
        return self._rendering.page(
            "dead",
            call.principal,
            queue=queue,
            queues=seen(call),
            query=query,
            runs=found.runs,
            next=found.next,
            may=call.principal.may(Role.OPERATOR, queue),
        )

    async def workers(self, call: Call) -> web.Response:
        """Show who serves a queue."""
        queue = call.queue(call.query.queue)
        agents = await self._client.agents(queue)
        return self._rendering.page(
            "workers",
            call.principal,
            queue=queue,
            queues=seen(call),
            workers=sorted(agents, key=lambda agent: agent.started),
        )

    # -- sign in -------------------------------------------------------------------------------

    async def login(self, call: Call) -> web.Response:
        """Ask for a key or token."""
        del call
        return self._rendering.page("login", _NOBODY, wrong="")

    async def sign_in(self, call: Call) -> web.Response:
        """Begin a session, or say what is wrong."""
        try:
            return await self._visitors.sign_in(call.request, call.body.get("key", [""])[0].strip())
        except Unauthenticated as error:
            return self._rendering.page("login", _NOBODY, status=401, wrong=str(error))

    async def sign_out(self, call: Call) -> web.Response:
        """End the session."""
        return await self._visitors.sign_out(call.request)

    async def static(self, call: Call) -> web.Response:
        """Serve one of the files that pages use."""
        name = call.path["name"]
        if name not in _STATIC:
            raise NotFound("there is no such file")
        answer = web.Response(body=self._files[name], content_type=_STATIC[name], charset="utf-8")
        answer.headers["Cache-Control"] = "max-age=300"
        return answer

    def refused(self, error: Exception) -> web.Response:
        """Tell a person why there is no page; who is not signed in is sent to do that."""
        if isinstance(error, Unauthenticated):
            return to("/login")
        problem = answer_of(error)
        # What was done and could not be noted is told as such: who reads no more would do it again.
        done = isinstance(error, Unaudited)
        told = done or problem.status < 500
        reason = said(error) if isinstance(error, MillstreamError) and told else ""
        return self._rendering.page(
            "refused", _NOBODY, status=problem.status, reason=reason, done=done
        )


def _parted(named: str | None, between: str) -> tuple[str, str] | None:
    """Return the two parts of what another run is named by."""
    if named is None:
        return None
    first, _, rest = named.partition(between)
    return first, rest


def _at_once(queue: str) -> Any:
    return shapes.ResultQuery(queue=queue, wait=0.0)
