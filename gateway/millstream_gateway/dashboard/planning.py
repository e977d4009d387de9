"""The forms in which people make and change schedules.

Promise: what a form says goes the way of the API, with its types, roles, refusals and audit;
nothing is written unless all of it is right. Who changes a schedule changes what was shown: where
somebody else was faster, nothing is written either. Secrets of the arguments are not shown, and
one that was left as it stands is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from aiohttp import web

from millstream.errors import MillstreamError, ScheduleConflict
from millstream.model.schedule import CatchUp, Overlap, Schedule
from millstream.telemetry.redaction import CUT, HIDDEN, redact
from millstream_gateway.calls import Call
from millstream_gateway.dashboard import filling
from millstream_gateway.dashboard.choices import Choices
from millstream_gateway.dashboard.filling import Filled
from millstream_gateway.dashboard.rendering import Rendering
from millstream_gateway.dashboard.unshown import OnlyAMark, restored
from millstream_gateway.dashboard.visitors import to
from millstream_gateway.rest.schedule_shapes import ChangedSchedule, NewSchedule
from millstream_gateway.rest.schedules import Schedules

#: What the schedule said that the form was drawn from.
_SEEN = "seen"
_FASTER = (
    "Somebody else changed it meanwhile. What stands there now is shown below, and nothing of yours"
    " was written."
)
_MARK = (
    f"{HIDDEN} and {CUT} stand for what is not shown, each in its own place: leave that as it is,"
    " or write a value."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """The handlers."""

    schedules: Schedules
    choices: Choices
    rendering: Rendering

    async def new(self, call: Call) -> web.Response:
        """Show an empty form."""
        return await self._new(call, filling.empty(arguments="{}", timezone="UTC"))

    async def make(self, call: Call) -> web.Response:
        """Make a schedule and show all, or the form with what is wrong."""
        filled = filling.read(call.body, NewSchedule)
        if not filled.faults:
            try:
                await self.schedules.create(replace(call, body=filled.as_(NewSchedule)))
                return to("/schedules")
            except MillstreamError as error:
                filled = filled.refused(error, taken="name")
        return await self._new(call, filled)

    async def show(self, call: Call) -> web.Response:
        """Show what a schedule says, in a form."""
        found = (await self.schedules.visible(call)).schedule
        return await self._standing(call, found, filling.empty(**_typed(found)))

    async def change(self, call: Call) -> web.Response:
        """Have a schedule say what the form says and show all, or the form with what is wrong."""
        found = (await self.schedules.visible(call)).schedule
        filled = filling.read(call.body, ChangedSchedule, also=(_SEEN,))
        if filled.typed.get(_SEEN) != _digest(call, found):
            return await self._overtaken(call)
        if "arguments" in filled.values:
            filled = _unhidden(filled, found.arguments)
        if not filled.faults:
            try:
                asked = replace(call, body=filled.as_(ChangedSchedule))
                await self.schedules.changed(asked, found)
                return to("/schedules")
            except ScheduleConflict:
                return await self._overtaken(call)
            except MillstreamError as error:
                filled = filled.refused(error, taken=filling.WHOLE)
        return await self._standing(call, found, filled)

    # -- below ---------------------------------------------------------------------------------

    async def _overtaken(self, call: Call) -> web.Response:
        found = (await self.schedules.visible(call)).schedule
        filled = filling.empty(**_typed(found)).faulty(filling.WHOLE, _FASTER, 409)
        return await self._standing(call, found, filled)

    async def _new(self, call: Call, filled: Filled) -> web.Response:
        return await self._page(call, filled, named=None, seen="")

    async def _standing(self, call: Call, found: Schedule, filled: Filled) -> web.Response:
        return await self._page(call, filled, named=found.name, seen=_digest(call, found))

    async def _page(
        self, call: Call, filled: Filled, *, named: str | None, seen: str
    ) -> web.Response:
        queues = self.choices.queues(call)
        return self.rendering.page(
            "schedule",
            call.principal,
            status=filled.status,
            form=filled,
            named=named,
            seen=seen,
            queues=queues,
            workflows=await self.choices.workflows(queues),
            overlaps=_MEANINGS_OF_OVERLAP,
            catch_ups=_MEANINGS_OF_CATCH_UP,
        )


_MEANINGS_OF_OVERLAP: Mapping[str, str] = {
    Overlap.SKIP: "pass this time over",
    Overlap.QUEUE: "wait until it has ended",
    Overlap.CANCEL: "cancel it, and start",
    Overlap.ALLOW: "start beside it",
}
_MEANINGS_OF_CATCH_UP: Mapping[str, str] = {
    CatchUp.SKIP: "no run",
    CatchUp.LAST: "one run for all of them",
    CatchUp.ALL: "a run for each",
}


def _typed(schedule: Schedule) -> dict[str, str]:
    """Return what a form says that has this schedule come out of it."""
    arguments = msgspec.json.format(msgspec.json.encode(redact(schedule.arguments)), indent=2)
    said = {
        "workflow": schedule.workflow,
        "arguments": arguments.decode(),
        "cron": schedule.cron,
        "every": _number(schedule.every),
        "timezone": schedule.timezone,
        "start": schedule.start and schedule.start.isoformat(),
        "end": schedule.end and schedule.end.isoformat(),
        "jitter": _number(schedule.jitter),
        "overlap": schedule.overlap,
        "catch_up": schedule.catch_up,
        "catch_up_limit": str(schedule.catch_up_limit),
        "queue": schedule.queue,
        "priority": schedule.priority,
        "timeout": _number(schedule.timeout),
        "version": schedule.version,
    }
    return {name: str(text) for name, text in said.items() if text is not None}


def _number(value: float | None) -> str | None:
    return None if value is None else repr(value).removesuffix(".0")


def _digest(call: Call, schedule: Schedule) -> str:
    """Return what stands for a schedule in a form: under the session's key, it tells nothing."""
    key = (call.principal.form_token or "").encode()[:64]
    return hashlib.blake2b(msgspec.json.encode(schedule), key=key, digest_size=16).hexdigest()


def _unhidden(filled: Filled, before: Any) -> Filled:
    """Return the form with the secrets that its arguments had and that were left as they stood."""
    try:
        arguments = restored(filled.values["arguments"], before)
    except OnlyAMark:
        return filled.faulty("arguments", _MARK)
    return replace(filled, values={**filled.values, "arguments": arguments})
