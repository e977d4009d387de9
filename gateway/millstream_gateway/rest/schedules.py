"""Schedules over HTTP: those of the caller's tenant, in the queues where the caller may look.

Names are shared by all tenants, like the ids of runs: a name that somebody else has is refused as
taken, and everything else about it is answered as if there were none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from millstream.client import Client
from millstream.errors import IdConflict, ScheduleConflict, UnknownSchedule
from millstream.model.schedule import Schedule, ScheduleStatus
from millstream_gateway.auth.principals import Role
from millstream_gateway.auth.rates import Rates
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Conflict, Forbidden
from millstream_gateway.rest import schedule_shapes, shapes
from millstream_gateway.rest.acting import Acting

T = TypeVar("T")
#: Schedules that are looked at in one call.
_PAGE = 100


class Schedules:
    """The handlers."""

    def __init__(self, client: Client, acting: Acting, enqueues: Rates) -> None:
        self._client = client
        self._schedules = client.schedules
        self._acting = acting
        self._enqueues = enqueues

    async def list(self, call: Call) -> Reply:
        """List schedules by name."""
        return Reply(value=await self.listed(call))

    async def listed(self, call: Call) -> schedule_shapes.ScheduleList:
        """Return a page of schedules.

        All others are passed over here and now: a mark behind one of them would tell its name.
        """
        limit, after = call.query.limit, call.query.after or ""
        found: list[ScheduleStatus] = []
        while len(found) <= limit:
            page = await self._schedules.list(after=after, limit=_PAGE)
            found += [status for status in page if _seen(call, status)]
            if len(page) < _PAGE:
                break
            after = page[-1].name
        more = found[limit - 1].name if len(found) > limit else None
        views = [schedule_shapes.view(status) for status in found[:limit]]
        return schedule_shapes.ScheduleList(schedules=views, next=more)

    async def show(self, call: Call) -> Reply:
        """Show one schedule, with its next times."""
        return Reply(value=schedule_shapes.view(await self.visible(call)))

    async def create(self, call: Call) -> Reply:
        """Make a schedule on behalf of the caller's tenant."""
        asked: schedule_shapes.NewSchedule = call.body
        queue = call.queue(asked.queue)
        wanted = asked.called(asked.name, queue, call.principal.acts_for)
        try:
            status = await self._act(
                call, "write schedule", queue, asked.name,
                lambda: self._schedules.create(wanted, paused=asked.paused),
            )  # fmt: skip
        except ScheduleConflict as error:
            # What the other one says is told to nobody.
            raise Conflict(f"schedule name {asked.name!r} is taken; choose another") from error
        return Reply(value=schedule_shapes.view(status), status=201)

    async def change(self, call: Call) -> Reply:
        """Have a schedule say something else. It stays paused, and stays its tenant's."""
        found = await self.visible(call)
        return Reply(value=schedule_shapes.view(await self.changed(call, found.schedule)))

    async def changed(self, call: Call, before: Schedule) -> ScheduleStatus:
        """Change a schedule that was found to be the caller's, if it still says that."""
        asked: schedule_shapes.ChangedSchedule = call.body
        queue = before.queue if asked.queue is None else call.queue(asked.queue)
        wanted = asked.called(before.name, queue, before.tenant)
        return await self._act(
            call, "write schedule", queue, before.name,
            lambda: self._schedules.change(before, wanted),
        )  # fmt: skip

    async def pause(self, call: Call) -> Reply:
        """Let a schedule fire no more until it is resumed."""
        return Reply(value=schedule_shapes.view(await self._turned(call, "pause schedule")))

    async def resume(self, call: Call) -> Reply:
        """Let a paused schedule fire again."""
        return Reply(value=schedule_shapes.view(await self._turned(call, "resume schedule")))

    async def _turned(self, call: Call, action: str) -> ScheduleStatus:
        found = await self.visible(call)
        verb = self._schedules.pause if action == "pause schedule" else self._schedules.resume
        return await self._act(
            call, action, found.schedule.queue, found.name, lambda: verb(found.name)
        )

    async def trigger(self, call: Call) -> Reply:
        """Start a run of a schedule now."""
        found = await self.visible(call)
        queue, run_id = found.schedule.queue, call.body.id
        self._enqueues.take(call.principal.name)
        taken = Conflict(f"run id {run_id!r} is taken in queue {queue!r}; choose another")
        try:
            run = await self._act(
                call, "trigger schedule", queue, found.name,
                lambda: self._schedules.trigger(found.name, id=run_id),
            )  # fmt: skip
        except IdConflict as error:
            raise taken from error
        if not run.created and not call.principal.sees((await run.status()).tenant):
            raise taken
        accepted = shapes.Accepted(id=run.id, queue=run.queue, created=run.created)
        return Reply(value=accepted, status=201 if run.created else 200)

    async def delete(self, call: Call) -> Reply:
        """Delete a schedule; its runs go on."""
        found = await self.visible(call)
        await self._act(
            call, "delete schedule", found.schedule.queue, found.name,
            lambda: self._schedules.delete(found.name),
        )  # fmt: skip
        return Reply(value=schedule_shapes.Deleted(name=found.name))

    async def visible(self, call: Call) -> ScheduleStatus:
        """Return the schedule of a path. Raises `UnknownSchedule` for one of others, too."""
        name = call.path["name"]
        found = await self._schedules.get(name)
        queue, tenant = found.schedule.queue, found.schedule.tenant
        looks = queue in call.served and call.principal.may(Role.VIEWER, queue)
        if not looks or not call.principal.sees(tenant):
            raise UnknownSchedule(name)
        if not _seen(call, found):
            role = call.needs.name.lower()
            raise Forbidden(f"you have not the role {role} in queue {queue!r}")
        return found

    async def _act(
        self, call: Call, action: str, queue: str, name: str, do: Callable[[], Awaitable[T]]
    ) -> T:
        return await self._acting.act(call, action, queue, name, do)


def _seen(call: Call, status: ScheduleStatus) -> bool:
    schedule = status.schedule
    return (
        schedule.queue in call.served
        and call.principal.may(call.needs, schedule.queue)
        and call.principal.sees(schedule.tenant)
    )
