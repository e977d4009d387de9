"""What parked runs wait for people to say: listed for operators, answered by link by anybody.

Whoever has the token of a question may answer that question, and need be nobody else; they learn
nothing that they do not have already: a token that is wrong, one that was used, a run of others and
a run that does not exist are all answered alike. What strangers try costs one look, is limited by
address, and is written down only once the token fits: nobody can fill the audit trail with tries.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from millstream.client import Client, Run
from millstream.errors import RunEnded, UnknownRun, UsageError
from millstream.model.approval import hash_of
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.message import MessageKind
from millstream.model.run import RunState, RunStatus
from millstream_gateway.auth.rates import Rates
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import NotFound
from millstream_gateway.rest import operating_shapes
from millstream_gateway.rest.acting import Acting
from millstream_gateway.rest.lists import Lists
from millstream_gateway.rest.operating_shapes import Question

#: Questions of one run that are listed. Branches may ask more of them at once.
_MOST_OF_ONE = 20
#: Who answers by link, for all that is known.
BY_LINK = "link"
_MARKS = {MessageKind.APPROVAL.of(""): "approval", MessageKind.RESOLUTION.of(""): "doubt"}


@dataclass(frozen=True, slots=True)
class Linked:
    """The question that a link leads to."""

    run: Run
    question: str
    data: object


class Questions:
    """The handlers. ``strangers`` limits who shows nothing but a token."""

    def __init__(self, client: Client, acting: Acting, lists: Lists, strangers: Rates) -> None:
        self._client = client
        self._acting = acting
        self._lists = lists
        self._strangers = strangers

    async def list(self, call: Call) -> Reply:
        """List what runs of a queue wait for people to say, a page of runs at a time."""
        queue = call.queue(call.path["queue"])

        def matches(status: RunStatus) -> bool:
            return call.principal.sees(status.tenant) and bool(_asked(status))

        found = await self._lists.page(
            call,
            queue,
            states=(RunState.PARKED,),
            matches=matches,
            limit=call.query.limit,
            cursor=call.query.cursor,
        )
        questions = [
            question
            for status in found.runs
            for kind, step in _asked(status)[:_MOST_OF_ONE]
            if (question := await self._question(status, kind, step)) is not None
        ]
        listed = operating_shapes.QuestionList(questions=questions, next=found.cursor)
        return Reply(value=listed)

    async def answer(self, call: Call) -> Reply:
        """Answer a question as whoever has its token."""
        given: operating_shapes.LinkAnswer = call.body
        linked = await self.linked(call, given.token)
        await self.answered(call, linked, given.token, given.approved, given.comment)
        told = operating_shapes.Told(id=linked.run.id, queue=linked.run.queue)
        return Reply(value=told, status=202)

    async def linked(self, call: Call, token: str) -> Linked:
        """Return the open question that a token belongs to. Raises `NotFound` for whatever else."""
        self._strangers.take(f"link:{call.request.remote}")
        queue = call.query.queue or call.served[0]
        if queue in call.served:
            run = self._client.run(call.path["id"], queue)
            try:
                return await self._found(run, hash_of(token))
            except UnknownRun:
                pass
        raise _nothing()

    async def answered(
        self, call: Call, linked: Linked, token: str, approved: bool, comment: str | None
    ) -> None:
        """Answer a question that was found. Raises `NotFound` when it is open no more."""
        run = linked.run
        try:
            await self._acting.act(
                call, "answer", run.queue, run.id,
                lambda: run.approve(token, approved, by=BY_LINK, comment=comment),
                actor=BY_LINK,
            )  # fmt: skip
        except (UnknownRun, RunEnded) as error:
            raise _nothing() from error
        except UsageError as error:
            if type(error) is not UsageError:
                raise
            raise _nothing() from error

    async def _found(self, run: Run, token_hash: str) -> Linked:
        status = await run.status()
        if status.state.final:
            raise _nothing()
        for record in await self._open(run, status):
            if hmac.compare_digest(str(record.value["token_hash"]), token_hash):
                return Linked(run, record.value["question"], record.value["data"])
        raise _nothing()

    async def _open(self, run: Run, status: RunStatus) -> Sequence[Record]:
        """Return the questions of a run that are open. One that is parked names them."""
        if status.state is RunState.PARKED:
            keys = [step for kind, step in _asked(status) if kind == "approval"]
            found = [await self._client.record(run.queue, run.id, key) for key in keys]
        else:
            found = [*(await self._client.journal(run)).values()]
        return [
            record
            for record in found
            if record is not None
            and record.kind is StepKind.APPROVAL
            and record.status is RecordStatus.WAITING
        ]

    async def _question(self, status: RunStatus, kind: str, step: str) -> Question | None:
        record = await self._client.record(status.queue, status.id, step)
        if record is None:
            return None
        doubt = kind == "doubt"
        if record.status is not (RecordStatus.INTENT if doubt else RecordStatus.WAITING):
            return None  # it was answered just now
        return Question(
            run=status.id,
            queue=status.queue,
            workflow=status.workflow,
            tenant=status.tenant,
            kind="doubt" if doubt else "approval",
            step=step,
            question=record.target if doubt else record.value["question"],
            data=record.inputs if doubt else record.value["data"],
            asked=record.began,
            due=None if doubt else record.value["due"],
        )


def _asked(status: RunStatus) -> list[tuple[str, str]]:
    """Return kind and step of what a run waits for people to say."""
    return [
        (kind, name.removeprefix(mark))
        for name in status.awaits
        for mark, kind in _MARKS.items()
        if name.startswith(mark)
    ]


def _nothing() -> NotFound:
    return NotFound("there is no such question, or it was answered")
