"""The form in which people enqueue a run.

Promise: what it says goes the way of the API, with its types, roles and bounds, on behalf of the
tenant of whoever is signed in. It brings the run's id along, so that sending it twice (a second
click, a page that was loaded again) starts one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from millstream.errors import MillstreamError
from millstream_gateway.calls import Call
from millstream_gateway.dashboard import filling
from millstream_gateway.dashboard.choices import Choices
from millstream_gateway.dashboard.filling import Filled
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.dashboard.visitors import page_of_run, to
from millstream_gateway.rest.runs import Runs
from millstream_gateway.rest.shapes import NewRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """The handlers."""

    runs: Runs
    choices: Choices
    rendering: Rendering
    new_id: Callable[[], str]

    async def new(self, call: Call) -> web.Response:
        """Show an empty form."""
        queue = call.query.queue or next(iter(self.choices.queues(call)), "")
        return await self._page(
            call, filling.empty(arguments="{}", id=self.new_id(), queue=call.queue(queue))
        )

    async def start(self, call: Call) -> web.Response:
        """Enqueue the run and show it, or the form with what is wrong."""
        filled = filling.read(call.body, NewRun)
        if not filled.faults:
            try:
                run = await self.runs.start(call, filled.as_(NewRun), None)
                return to(page_of_run(run.id, run.queue))
            except MillstreamError as error:
                filled = filled.refused(error, taken="id")
        return await self._page(call, filled)

    async def _page(self, call: Call, filled: Filled) -> web.Response:
        queues = self.choices.queues(call)
        return self.rendering.page(
            "enqueue",
            call.principal,
            status=filled.status,
            form=filled,
            queues=queues,
            workflows=await self.choices.workflows(queues),
        )
