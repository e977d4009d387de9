"""What the forms of the pages do: each is the API's own deed, and shows the page it came from.

A form is checked like a body of the API: by the same types, with the same refusals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web

from millstream_gateway.calls import Call
from millstream_gateway.dashboard.planning import Planning
from millstream_gateway.dashboard.starting import Starting
from millstream_gateway.dashboard.visitors import FIELD, page_of_run, quoted, to
from millstream_gateway.refusals import Malformed
from millstream_gateway.rest import operating_shapes, schedule_shapes, shapes
from millstream_gateway.rest.bulk import Bulk
from millstream_gateway.rest.operating import Operating
from millstream_gateway.rest.queues import Queues
from millstream_gateway.rest.runs import Runs
from millstream_gateway.rest.schedules import Schedules


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """The handlers of forms."""

    runs: Runs
    queues: Queues
    bulk: Bulk
    operating: Operating
    schedules: Schedules
    #: Those that are filled in.
    planning: Planning
    starting: Starting

    # -- one run -------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> web.Response:
        """Ask a run to end, and show it."""
        moved: shapes.Moved = (await self.runs.cancel(call)).value
        return to(page_of_run(moved.id, moved.queue))

    async def retry(self, call: Call) -> web.Response:
        """Start a run once more, and show it."""
        moved: shapes.Moved = (await self.runs.retry(call)).value
        return to(page_of_run(moved.id, moved.queue))

    async def fork(self, call: Call) -> web.Response:
        """Begin another run from a step on, and show that."""
        asked = _filled(call, operating_shapes.NewFork)
        forked: shapes.Accepted = (await self.operating.fork(replace(call, body=asked))).value
        return to(page_of_run(forked.id, forked.queue))

    async def answer(self, call: Call) -> web.Response:
        """Answer a question of a run, and show the run."""
        asked = _filled(call, operating_shapes.Answer)
        told: operating_shapes.Told = (await self.operating.answer(replace(call, body=asked))).value
        return to(page_of_run(told.id, told.queue))

    async def resolve(self, call: Call) -> web.Response:
        """Say what became of a call, and show the run."""
        asked = _filled(call, operating_shapes.Resolution)
        told = (await self.operating.resolve(replace(call, body=asked))).value
        return to(page_of_run(told.id, told.queue))

    # -- many runs, queues ---------------------------------------------------------------------

    async def replay(self, call: Call) -> web.Response:
        """Start dead letters once more, those that were chosen or all that match; show the rest."""
        queue = call.queue(call.query.queue)
        if call.body.get("all") == ["true"]:
            chosen = _filled(call, operating_shapes.Chosen)
        else:
            chosen = _filled(call, operating_shapes.Chosen, several=("id",), rename={"id": "ids"})
        if chosen.all or chosen.ids:
            await self.bulk.replayed(call, queue, chosen)
        return to(f"/dead?queue={quoted(queue)}")

    async def pause(self, call: Call) -> web.Response:
        """Pause a queue, and show all."""
        await self.queues.pause(call)
        return to("/")

    async def resume(self, call: Call) -> web.Response:
        """Let a queue go on, and show all."""
        await self.queues.resume(call)
        return to("/")

    # -- schedules -----------------------------------------------------------------------------

    async def pause_schedule(self, call: Call) -> web.Response:
        """Pause a schedule, and show all."""
        await self.schedules.pause(call)
        return to("/schedules")

    async def resume_schedule(self, call: Call) -> web.Response:
        """Let a schedule go on, and show all."""
        await self.schedules.resume(call)
        return to("/schedules")

    async def trigger_schedule(self, call: Call) -> web.Response:
        """Start a run of a schedule, and show it."""
        reply = await self.schedules.trigger(replace(call, body=schedule_shapes.Trigger()))
        started: shapes.Accepted = reply.value
        return to(page_of_run(started.id, started.queue))

    async def delete_schedule(self, call: Call) -> web.Response:
        """Delete a schedule, and show the rest."""
        await self.schedules.delete(call)
        return to("/schedules")


def _filled(
    call: Call,
    wanted: type[Any],
    *,
    several: Sequence[str] = (),
    rename: Mapping[str, str] = {},
) -> Any:
    """Return a form as the type that is wanted; a field that was left empty was not filled in."""
    values = {
        rename.get(name, name): found if name in several else found[0]
        for name, found in call.body.items()
        if name != FIELD and any(found)
    }
    try:
        return msgspec.convert(values, wanted, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(f"the form is not as described: {error}") from error
