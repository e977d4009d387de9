"""Runs over HTTP: enqueue, look, wait, list, stop, start again.

A run of another tenant is answered exactly like a run that does not exist. Whatever changes a run
is audited; enqueueing is not, since the run itself says who asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import anyio
import msgspec

from millstream.client import Client, Enqueue, Run
from millstream.errors import (
    IdConflict,
    QueueFull,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    UnknownRun,
)
from millstream.model.attributes import pairs
from millstream.model.run import RunState, RunStatus
from millstream.model.selection import Selection
from millstream_gateway.auth.rates import Places, Rates
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Conflict, Malformed
from millstream_gateway.rest import shapes
from millstream_gateway.rest.acting import Acting, as_things_stand
from millstream_gateway.rest.lists import Lists
from millstream_gateway.waits import first_of, until_gone

#: An end that stands is read within so many seconds, or the store is away.
_READ_S = 10.0
_NAMES = Enqueue.__struct_fields__
#: All of them in one call: this is done for every run.
_values_of = attrgetter(*_NAMES)


class Runs:
    """The handlers. ``drain`` ends whatever waits."""

    def __init__(
        self,
        client: Client,
        acting: Acting,
        lists: Lists,
        *,
        enqueues: Rates,
        places: Places,
        drain: anyio.Event,
        new_id: Callable[[], str],
    ) -> None:
        self._client = client
        self._acting = acting
        self._lists = lists
        self._enqueues = enqueues
        self._places = places
        self._drain = drain
        self._new_id = new_id

    # -- enqueue -------------------------------------------------------------------------------

    async def start(self, call: Call, asked: shapes.NewRun, key: str | None) -> Run:
        """Accept one run. ``key`` stands for its id, where it has none."""
        queue = call.queue(asked.queue)
        self._enqueues.take(call.principal.name)
        return await self._accepted(call, self._wanted(call, asked, queue, key))

    async def enqueue(self, call: Call) -> Reply:
        """Accept one run."""
        run = await self.start(call, call.body, call.header("Idempotency-Key"))
        accepted = shapes.Accepted(id=run.id, queue=run.queue, created=run.created)
        return Reply(value=accepted, status=201 if run.created else 200)

    async def enqueue_many(self, call: Call) -> Reply:
        """Accept many runs, or say of each why not."""
        asked: list[shapes.NewRun] = call.body.runs
        queues = [call.queue(each.queue) for each in asked]
        self._enqueues.take(call.principal.name, len(asked))
        key = call.header("Idempotency-Key")
        wanted = [
            self._wanted(call, each, queue, None if key is None else f"{key}/{number}")
            for number, (each, queue) in enumerate(zip(asked, queues, strict=True))
        ]
        # With ids of their own, all may be said again.
        wanted = [msgspec.structs.replace(each, id=each.id or self._new_id()) for each in wanted]
        try:
            runs = await self._client.enqueue_many(wanted)
            answers = [
                await self._answer(call, each, run) for each, run in zip(wanted, runs, strict=True)
            ]
        except (IdConflict, QueueFull):
            # The others were accepted, and are found to be there.
            answers = [await self._answer(call, each) for each in wanted]
        return Reply(value=shapes.AcceptedMany(runs=answers))

    async def _answer(
        self, call: Call, wanted: Enqueue, run: Run | None = None
    ) -> shapes.AcceptedOrNot:
        queue, run_id = wanted.queue, str(wanted.id)
        try:
            found = await self._accepted(call, wanted, run)
        except (IdConflict, QueueFull, Conflict) as error:
            return shapes.AcceptedOrNot(id=run_id, queue=queue, error=str(error))
        return shapes.AcceptedOrNot(id=found.id, queue=queue, created=found.created)

    async def _accepted(self, call: Call, wanted: Enqueue, run: Run | None = None) -> Run:
        """Return the run that was accepted, unless it is somebody else's."""
        taken = Conflict(f"run id {wanted.id!r} is taken in queue {wanted.queue!r}; choose another")
        if run is None:
            try:
                run = await self._client.enqueue(**_keywords(wanted))
            except IdConflict as error:
                raise taken from error
        if not run.created and not call.principal.sees((await run.status()).tenant):
            raise taken
        return run

    def _wanted(self, call: Call, asked: shapes.NewRun, queue: str, key: str | None) -> Enqueue:
        if asked.id is not None and key is not None:
            raise Malformed("give an id or an Idempotency-Key, not both")
        return Enqueue(
            asked.workflow,
            asked.arguments,
            asked.id if key is None else _id_of(call, key),
            queue,
            asked.priority,
            asked.delay,
            call.principal.acts_for,
            asked.timeout,
            asked.version,
            attributes=asked.attributes,
        )

    # -- look ----------------------------------------------------------------------------------

    async def show(self, call: Call) -> Reply:
        """Say what is known of a run."""
        _, status = await self.visible(call)
        return Reply(value=shapes.view(status))

    async def list(self, call: Call) -> Reply:
        """List runs, a page at a time."""
        asked: shapes.RunsQuery = call.query
        found = await self._lists.page(
            call,
            call.queue(asked.queue),
            states=asked.state or tuple(RunState),
            limited=asked.limited,
            matches=visible_to(call, filters_of(asked)),
            limit=asked.limit,
            cursor=asked.cursor,
        )
        runs = [shapes.view(status) for status in found.runs]
        return Reply(value=shapes.RunList(runs=runs, next=found.cursor))

    async def result(self, call: Call) -> Reply:
        """Say how a run ended, waiting for it if asked to."""
        run, status = await self.visible(call)
        if not status.state.final and call.query.wait:
            with self._places.hold(call.principal.name):
                await first_of(
                    lambda: self._ended(run, call.query.wait),
                    self._drain.wait,
                    lambda: until_gone(call.request),
                )
            status = await run.status()
        if not status.state.final:
            end = shapes.RunEnd(
                id=run.id, queue=run.queue, state=status.state, waits_for=status.waits_for
            )
            return Reply(value=end, status=202, headers={"Retry-After": "1"})
        return Reply(value=await self._end_of(run))

    async def _ended(self, run: Run, wait_s: float) -> None:
        try:
            await run.result(wait_s)
        except (RunFailed, RunCancelled, ResultTimeout):
            return

    async def _end_of(self, run: Run) -> shapes.RunEnd:
        end = shapes.RunEnd(id=run.id, queue=run.queue, state=RunState.COMPLETED)
        try:
            end.result = await run.result(_READ_S)
        except RunCancelled:
            end.state = RunState.CANCELLED
        except RunFailed as error:
            end.state = RunState.FAILED
            end.error = shapes.Failure(cause=error.cause, message=error.reason)
        except ResultTimeout as error:
            # It was started once more, just now.
            raise Conflict(f"run {run.id!r} goes on") from error
        return end

    # -- operate -------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> Reply:
        """Ask a run to end."""
        run, _ = await self.visible(call)
        state = await self._acting.act(call, "cancel", run.queue, run.id, run.cancel)
        return Reply(value=shapes.Moved(id=run.id, queue=run.queue, state=state), status=202)

    async def retry(self, call: Call) -> Reply:
        """Start a run that failed or was cancelled once more."""
        run, _ = await self.visible(call)
        await self._acting.act(
            call, "retry", run.queue, run.id, lambda: as_things_stand(run.retry())
        )
        moved = shapes.Moved(id=run.id, queue=run.queue, state=RunState.QUEUED)
        return Reply(value=moved, status=202)

    async def visible(self, call: Call) -> tuple[Run, RunStatus]:
        """Return the run of a path and its status. Raises `UnknownRun` for one of others, too."""
        queue = call.queue(call.query.queue)
        run = self._client.run(call.path["id"], queue)
        status = await run.status()
        if not call.principal.sees(status.tenant):
            raise UnknownRun(run.id, queue)
        return run, status


def filters_of(asked: Any) -> Selection:
    """Return what is said of the runs that are meant, beside their states."""
    return Selection(
        workflow=asked.workflow,
        tenant=asked.tenant,
        cause=asked.cause,
        since=asked.since,
        until=asked.until,
        attributes=pairs(asked.attribute),
    )


def visible_to(call: Call, wanted: Selection) -> Callable[[RunStatus], bool]:
    """Return whether a run is among them and of a tenant that the caller sees."""

    def matches(status: RunStatus) -> bool:
        return call.principal.sees(status.tenant) and wanted.matches(status)

    return matches


def _id_of(call: Call, key: str) -> str:
    """Return the id that a key stands for: the same for all of a tenant, and for no other."""
    if not 1 <= len(key) <= 260 or not key.isprintable():
        raise Malformed("an Idempotency-Key has 1 to 255 printable characters")
    owner = call.principal.acts_for or ""
    digest = hashlib.blake2b(f"{len(owner)}:{owner}{key}".encode(), digest_size=20)
    return f"key-{digest.hexdigest()}"


def _keywords(wanted: Enqueue) -> dict[str, Any]:
    return dict(zip(_NAMES, _values_of(wanted), strict=True))
