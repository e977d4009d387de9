"""What is said to a run under way over HTTP, a fork of it, and what it has recorded.

A run of another tenant is answered like one that does not exist, here as everywhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

from millstream.client import Client
from millstream.errors import IdConflict
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.telemetry.redaction import HIDDEN, redact
from millstream_gateway.auth.rates import Rates
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Conflict
from millstream_gateway.rest import operating_shapes, shapes
from millstream_gateway.rest.acting import Acting, as_things_stand
from millstream_gateway.rest.runs import Runs

#: Under this name `ctx.approve` keeps what a link to its question brings.
_TOKEN = "token"  # noqa: S105 - the name of a value


class Operating:
    """The handlers."""

    def __init__(self, client: Client, runs: Runs, acting: Acting, enqueues: Rates) -> None:
        self._client = client
        self._runs = runs
        self._acting = acting
        self._enqueues = enqueues

    async def signal(self, call: Call) -> Reply:
        """Say something to a run."""
        run, _ = await self._runs.visible(call)
        said: operating_shapes.Signal = call.body
        await self._acting.act(
            call, "signal", run.queue, run.id,
            lambda: run.signal(said.name, said.payload, id=said.id),
        )  # fmt: skip
        return _told(run.id, run.queue)

    async def answer(self, call: Call) -> Reply:
        """Answer a question of a run, as whoever calls."""
        run, _ = await self._runs.visible(call)
        given: operating_shapes.Answer = call.body
        name = call.principal.name
        await self._acting.act(
            call, "answer", run.queue, run.id,
            lambda: as_things_stand(
                run.approve(given.question, given.approved, by=name, comment=given.comment)
            ),
        )  # fmt: skip
        return _told(run.id, run.queue)

    async def resolve(self, call: Call) -> Reply:
        """Say what became of a tool call whose outcome nobody knows."""
        run, _ = await self._runs.visible(call)
        said: operating_shapes.Resolution = call.body
        verdict: Any = {"result": said.result} if said.verdict == "result" else said.verdict
        await self._acting.act(
            call, "resolve", run.queue, run.id,
            lambda: as_things_stand(run.resolve(said.step, verdict)),
        )  # fmt: skip
        return _told(run.id, run.queue)

    async def fork(self, call: Call) -> Reply:
        """Begin another run with what a run recorded before a step."""
        run, _ = await self._runs.visible(call)
        asked: operating_shapes.NewFork = call.body
        self._enqueues.take(call.principal.name)
        try:
            forked = await self._acting.act(
                call, "fork", run.queue, run.id,
                lambda: run.fork(asked.step, id=asked.id, version=asked.version),
            )  # fmt: skip
        except IdConflict as error:
            # Of whom it is, and what it does, is told to nobody.
            taken = f"run id {asked.id!r} is taken in queue {run.queue!r}; choose another"
            raise Conflict(taken) from error
        accepted = shapes.Accepted(id=forked.id, queue=forked.queue, created=forked.created)
        return Reply(value=accepted, status=201 if forked.created else 200)

    async def steps(self, call: Call) -> Reply:
        """Show what a run has recorded."""
        run, _ = await self._runs.visible(call)
        asked: operating_shapes.StepsQuery = call.query
        journal = sorted((await self._client.journal(run)).items(), key=began)
        page = journal[asked.skip : asked.skip + asked.limit]
        left = max(0, len(journal) - asked.skip - len(page))
        steps = [step_view(key, record) for key, record in page]
        return Reply(value=operating_shapes.StepList(steps=steps, left=left))


def began(item: tuple[str, Record]) -> tuple[float, str]:
    """Return what steps are sorted by."""
    key, record = item
    return record.began, key


def step_view(key: str, record: Record) -> operating_shapes.StepView:
    """Return a step as it is shown: without what looks like a secret."""
    spilled = record.value.size if type(record.value) is Spilled else None
    hidden = record.kind is StepKind.VALUE and record.target == _TOKEN
    value = None if spilled is not None else redact(_said(record))
    return operating_shapes.StepView(
        key=key,
        kind=str(record.kind),
        target=record.target,
        status=_status(record),
        attempts=record.attempts,
        run_attempt=record.run_attempt,
        began=record.began,
        took_s=record.took_s,
        by=record.by,
        value=HIDDEN if hidden else value,
        # They were made without secrets; this is for those of another release.
        inputs=redact(record.inputs),
        spilled=spilled,
    )


def _said(record: Record) -> Any:
    """Return a value as it may be read; of a question not even the hash of its token."""
    if record.kind is StepKind.APPROVAL and isinstance(record.value, dict):
        return {name: each for name, each in record.value.items() if name != "token_hash"}
    return msgspec.to_builtins(record.value)


def _status(record: Record) -> str:
    """Return how a step stands; of a child its end."""
    if record.status is RecordStatus.ENDED and record.value:
        return str(record.value[0])
    return str(record.status)


def _told(run_id: str, queue: str) -> Reply:
    return Reply(value=operating_shapes.Told(id=run_id, queue=queue), status=202)
