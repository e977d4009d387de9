"""Say something to a run that is under way. Safe to say twice: every message has an id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from random import Random
from typing import Any

from millstream.client.auditing import Auditor, audited, queue_and_run
from millstream.client.queues import Queues
from millstream.errors import KeyOccupied, RunEnded, SignalsFull, UnknownRun, UsageError
from millstream.model import ids
from millstream.model.approval import Approval, hash_of
from millstream.model.elicitation import Inputs, responses_to
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limits import Limits
from millstream.model.message import MessageKind, check_name
from millstream.store import codec, journals, messages
from millstream.store.connection import Connection
from millstream.store.keys import Lane


def _verdict(verdict: str | Mapping[str, Any]) -> list[Any]:
    match verdict:
        case "retry" | "fail":
            return [verdict]
        case Mapping() if set(verdict) == {"result"}:
            return ["result", verdict["result"]]
        case _:
            raise UsageError(
                f"a resolution is 'retry', 'fail' or {{'result': ...}}, not {verdict!r}"
            )


class Speaker:
    """Sends messages to runs, for one client."""

    def __init__(
        self,
        connection: Connection,
        queues: Queues,
        *,
        retention_s: float,
        limits: Limits,
        random: Random,
        auditor: Auditor,
    ) -> None:
        self._connection = connection
        self._queues = queues
        self._retention_s = retention_s
        self._limits = limits
        self._random = random
        self.auditor = auditor

    @audited("signal", queue_and_run)
    async def signal(
        self, queue: str, run_id: str, name: str, payload: Any, id: str | None = None
    ) -> None:
        """Send a signal. See `Run.signal`."""
        name = MessageKind.SIGNAL.of(check_name(name))
        data = codec.encode(payload, f"the payload of signal {name[2:]!r}", self._limits.message)
        chosen = ids.new_run_id(self._random) if id is None else check_name(id, "id")
        await self.send(queue, messages.Message(run_id=run_id, name=name, payload=data, id=chosen))

    @audited("resolve", queue_and_run)
    async def resolve(
        self, queue: str, run_id: str, step: str, verdict: str | Mapping[str, Any]
    ) -> None:
        """Say what became of a step whose outcome nobody knows. See `Run.resolve`."""
        data = codec.encode(_verdict(verdict), "the resolution", self._limits.message)

        async def ask(lane: Lane) -> bytes | None:
            return await messages.record(self._connection, lane, run_id, step)

        intent = await self._queues.look(queue, run_id, ask, None)
        if intent is None or codec.decode_record(intent).status is not RecordStatus.INTENT:
            raise UsageError(
                f"step {step!r} of run {run_id!r} is not in doubt; `millstream runs show {run_id}`"
                " lists the steps, and those that are have the status intent"
            )
        # One verdict for one intent, whoever is asked: a later one finds the first known.
        about = hashlib.blake2b(intent, digest_size=12).hexdigest()
        name = MessageKind.RESOLUTION.of(step)
        await self.send(
            queue, messages.Message(run_id=run_id, name=name, payload=data, id=f"about {about}")
        )

    @audited("answer", queue_and_run)
    async def approve(
        self, queue: str, run_id: str, question: str | None, answer: Approval
    ) -> None:
        """Answer a question with yes or no. See `Run.approve`."""
        key, record = await self._open_question(queue, run_id, question)
        if record.kind is StepKind.TOOL:
            return await self._respond(queue, run_id, key, record, {} if answer.approved else None)
        data = codec.encode(answer, "the answer", self._limits.message)
        name = MessageKind.APPROVAL.of(key)
        about = f"answer to {key} of {record.began}"
        await self.send(queue, messages.Message(run_id=run_id, name=name, payload=data, id=about))
        return None

    @audited("answer", queue_and_run)
    async def answer(
        self, queue: str, run_id: str, question: str | None, content: Mapping[str, Any]
    ) -> None:
        """Give a tool what it asks for. See `Run.answer`."""
        key, record = await self._open_question(queue, run_id, question)
        if record.kind is not StepKind.TOOL:
            raise UsageError(f"question {key!r} of run {run_id!r} wants a yes or a no, no content")
        await self._respond(queue, run_id, key, record, content)

    async def _respond(
        self,
        queue: str,
        run_id: str,
        key: str,
        record: Record,
        content: Mapping[str, Any] | None,
    ) -> None:
        asked = record.value
        inputs = Inputs(asked["round"], asked["state"], responses_to(asked["asks"], content))
        data = codec.encode(inputs.packed(), "the answer", self._limits.message)
        name = MessageKind.INPUT.of(key)
        # One answer for one question, and a tool may ask more than once.
        about = f"input {asked['round']} to {key} of {record.began}"
        await self.send(queue, messages.Message(run_id=run_id, name=name, payload=data, id=about))

    async def _open_question(
        self, queue: str, run_id: str, question: str | None
    ) -> tuple[str, Record]:
        """Return the step that asks, named by its key or its token; None: the only one."""

        async def ask(lane: Lane) -> dict[str, Record]:
            return await journals.load(self._connection, lane, run_id)

        nothing: dict[str, Record] = {}
        records = await self._queues.look(queue, run_id, ask, nothing)
        found = [
            (key, record)
            for key, record in records.items()
            if record.status is RecordStatus.WAITING and _asked(key, record, question)
        ]
        if len(found) != 1:
            which = "no open question" if not found else f"{len(found)} open questions"
            raise UsageError(
                f"run {run_id!r} has {which}{f' {question!r}' if question else ''};"
                " `millstream runs approvals` lists them with their keys"
            )
        return found[0]

    async def send(self, queue: str, message: messages.Message) -> None:
        """Send a message to wherever its run is."""

        async def ask(lane: Lane) -> str:
            (answer,) = await messages.send(
                self._connection, lane, [message], self._retention_s, self._limits
            )
            return answer

        answer = await self._queues.look(queue, message.run_id, ask, "")
        if not answer:
            raise UnknownRun(message.run_id, queue)
        if answer == "occupied":
            raise KeyOccupied(message.run_id, "mailbox")
        if answer == "full":
            limits = self._limits
            raise SignalsFull(message.run_id, queue, limits.messages, limits.message_bytes)
        if answer not in {"kept", "known"}:
            raise RunEnded(message.run_id, queue, answer)


def _asked(key: str, record: Record, question: str | None) -> bool:
    if record.kind is StepKind.TOOL:
        return question in {None, key}
    return record.kind is StepKind.APPROVAL and (
        question in {None, key} or record.value["token_hash"] == hash_of(question or "")
    )
