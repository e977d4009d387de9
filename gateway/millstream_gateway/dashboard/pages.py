"""The pages: what each shows, and what its forms do. Whatever they do, the API does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

import msgspec
from aiohttp import web

from millstream.client import Client
from millstream.errors import MillstreamError, said
from millstream.model.run import RunState
from millstream.store import boards
from millstream.store.connection import Connection
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.calls import Call
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.dashboard.visitors import Visitors, page_of_run, to
from millstream_gateway.problems import answer_of
from millstream_gateway.refusals import Malformed, NotFound, Unauthenticated
from millstream_gateway.rest import shapes
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.runs import Runs

#: Steps of a run that its page shows.
_MOST_STEPS = 500
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
        connection: Connection,
        runs: Runs,
        queues: Queues,
        visitors: Visitors,
        rendering: Rendering,
    ) -> None:
        self._client = client
        self._connection = connection
        self._runs = runs
        self._queues = queues
        self._visitors = visitors
        self._rendering = rendering
        folder = resources.files("millstream_gateway.dashboard").joinpath("static")
        self._files = {name: folder.joinpath(name).read_bytes() for name in _STATIC}

    # -- look ----------------------------------------------------------------------------------

    async def overview(self, call: Call) -> web.Response:
        """Show the queues."""
        queues = (await self._queues.list(call)).value.queues
        return self._rendering.page("overview", call.principal, queues=queues)

    async def runs(self, call: Call) -> web.Response:
        """Show runs, by the filters of the query."""
        found: shapes.RunList = (await self._runs.list(call)).value
        return self._rendering.page(
            "runs",
            call.principal,
            queue=call.queue(call.query.queue),
            queues=_seen(call),
            states=list(RunState),
            query=call.query,
            runs=found.runs,
            next=found.next,
        )

    async def run(self, call: Call) -> web.Response:
        """Show one run: where it is, what it was given, and its steps in the order they began."""
        run, status = await self._runs.visible(call)
        journal = await self._client.journal(run)
        steps = sorted(journal.items(), key=lambda item: item[1].began)
        end = None
        if status.state.final:
            end = (await self._runs.result(replace(call, query=_at_once(run.queue)))).value
        return self._rendering.page(
            "run",
            call.principal,
            run=shapes.view(status),
            arguments=await self._client.arguments(run),
            steps=steps[:_MOST_STEPS],
            left=max(0, len(steps) - _MOST_STEPS),
            end=end,
            may=call.principal.may(Role.OPERATOR, run.queue),
        )

    async def dead(self, call: Call) -> web.Response:
        """Show the dead letters of a queue."""
        queue = call.queue(call.query.queue)
        asked = shapes.DeadQuery(limit=call.query.limit, cursor=call.query.cursor)
        found = (await self._queues.dead(replace(call, path={"queue": queue}, query=asked))).value
        return self._rendering.page(
            "dead",
            call.principal,
            queue=queue,
            queues=_seen(call),
            runs=found.runs,
            next=found.next,
            may=call.principal.may(Role.OPERATOR, queue),
        )

    async def workers(self, call: Call) -> web.Response:
        """Show who serves a queue, and the models they have."""
        queue = call.queue(call.query.queue)
        agents = await self._client.agents(queue)
        notes = await boards.read(self._connection, boards.MODELS)
        models = [msgspec.json.decode(note) for _, note in sorted(notes.items())]
        return self._rendering.page(
            "workers",
            call.principal,
            queue=queue,
            queues=_seen(call),
            workers=sorted(agents, key=lambda agent: agent.started),
            models=models,
        )

    # -- act -----------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> web.Response:
        """Ask a run to end, and show it."""
        moved: shapes.Moved = (await self._runs.cancel(call)).value
        return to(page_of_run(moved.id, moved.queue))

    async def retry(self, call: Call) -> web.Response:
        """Start a run once more, and show it."""
        moved: shapes.Moved = (await self._runs.retry(call)).value
        return to(page_of_run(moved.id, moved.queue))

    async def replay(self, call: Call) -> web.Response:
        """Start the dead letters that were chosen once more, and show the rest."""
        queue = call.queue(call.query.queue)
        ids: Sequence[str] = call.body.get("id", [])
        if len(ids) > shapes.MOST_AT_ONCE:
            raise Malformed(f"at most {shapes.MOST_AT_ONCE} at once")
        await self._queues.replayed(call, queue, ids)
        return to(f"/dead?queue={queue}")

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
        reason = said(error) if isinstance(error, MillstreamError) and problem.status < 500 else ""
        return self._rendering.page("refused", _NOBODY, status=problem.status, reason=reason)


def _seen(call: Call) -> list[str]:
    return [name for name in call.served if call.principal.may(Role.VIEWER, name)]


def _at_once(queue: str) -> Any:
    return shapes.ResultQuery(queue=queue, wait=0.0)
