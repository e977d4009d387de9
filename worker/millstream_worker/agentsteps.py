"""Have another agent do something, once, and wait for it as long as it takes.

    intent  ->  message  ->  its task stands in the journal  ->  looks, ever more rarely  ->  record

The conversation and the message have ids made from the step, the same for every attempt and every
worker. So when a worker dies between sending and writing down, whoever goes on finds the agent's
task by the conversation instead of sending again. While the task goes on, the run is parked: it
holds no slot and no memory of a worker.

From the intent on the agent's task is noted beside the run. What is still noted when the run ends
is withdrawn (`withdrawing`); so an operator's retry begins such a task anew, under other ids.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import anyio

from millstream.errors import (
    AgentError,
    AgentNotReached,
    AgentOutcomeUnknown,
    AgentRejected,
    AgentTimeout,
    AgentUntrusted,
    PayloadTooLarge,
)
from millstream.model.agent import AgentReply
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus
from millstream.store import withdrawals
from millstream_worker.agents.asked import MessageLost
from millstream_worker.agents.replies import ASKS, ENDED, replied, reply_of, state_of
from millstream_worker.parking import Parking
from millstream_worker.steps import Recorder, Step, replayed

#: Between two looks at a task, in seconds and as a share of the time that it has taken so far: so a
#: run that was parked goes on as it began.
_SOONEST_S, _LATEST_S, _SHARE = 0.2, 30.0, 0.5
#: Looks in a row that do not reach the agent: about a day.
_MOST_MISSED = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCall:
    """A call as a workflow made it."""

    wanted: str
    parts: Sequence[dict[str, Any]]
    skill: str | None
    #: A task that is answered, and its conversation; empty: a new one.
    task: str
    context: str
    retry: RetryPolicy
    timeout_s: float | None
    #: Made from the run and the step.
    key: str
    #: Attempts made before an operator's retry: what was begun before them was withdrawn.
    base: int = 0

    def since(self, base: int) -> AgentCall:
        """Return the call as it is made after an operator's retry: under a key of its own."""
        if not base:
            return self
        key = hashlib.blake2b(f"{self.key}\n{base}".encode(), digest_size=16).hexdigest()
        return replace(self, key=key)

    @property
    def context_id(self) -> str:
        """The conversation: one that nobody else has, unless it goes on."""
        return self.context or str(uuid.UUID(hex=self.key))

    @property
    def message(self) -> dict[str, Any]:
        """What is sent, the same however often."""
        message: dict[str, Any] = {
            "messageId": self.key,
            "contextId": self.context_id,
            "role": "ROLE_USER",
            "parts": list(self.parts),
        }
        if self.task:
            message["taskId"] = self.task
        if self.skill is not None:
            message["metadata"] = {"skill": self.skill}
        return message


async def call_agent(
    recorder: Recorder, parking: Parking, step: Step, call: AgentCall, record: Record | None
) -> AgentReply:
    """Return what an agent answered, from the journal or from the agent."""
    open_ = {RecordStatus.INTENT, RecordStatus.WAITING}
    if record is not None and record.status not in open_:
        return AgentReply(**replayed(step, await recorder.whole(record), dict))
    return await _Calling(recorder, parking, step, call, record).go()


class _Calling:
    """One call, on its way from intent to answer."""

    def __init__(
        self,
        recorder: Recorder,
        parking: Parking,
        step: Step,
        call: AgentCall,
        record: Record | None,
    ) -> None:
        self._recorder = recorder
        self._parking = parking
        self._step = step
        self._wanted = call
        self._began = recorder.wall() if record is None else record.began
        self._agents = recorder.environment.agents
        self._attempt = 0
        #: What stands in the journal: which agent, its task once that is known, and since which
        #: retry of an operator.
        self._known: dict[str, Any] = {} if record is None else dict(record.value)
        self._call = call.since(self._known.get("base", 0))
        self._waits = record is not None and record.status is RecordStatus.WAITING
        #: A message of an earlier worker, or one that got no answer: it may have arrived.
        self._lost = record is not None and not self._waits

    async def go(self) -> AgentReply:
        """Take the call to its end."""
        try:
            if not self._waits:
                with self._parking.acting:
                    reply = await self._sent()
            else:
                reply = None
            if reply is None:
                reply = await self._watched()
        except AgentError as error:
            # A task that may go on stays noted: also one that is given up here.
            done = b"" if self._known and not (self._waits or self._lost) else None
            attempts = max(1, self._attempt)
            await self._recorder.fail(self._step, error, attempts, self._began, task=done)
        return await self._ended(reply)

    # -- send ----------------------------------------------------------------------------------

    async def _sent(self) -> AgentReply | None:
        """Have the agent take the message; return its answer, if it has one already."""
        await self._recorder.ready()
        if not self._known:
            await self._intend(await self._agents.resolve(self._call.wanted))
        while True:
            self._attempt += 1
            await self._recorder.ready()
            try:
                answer = await self._found() or await self._answer()
                if self._withdrawn(answer):
                    await self._intend(self._known["agent"])
                    answer = await self._answer()
                return await self._taken(answer)
            except MessageLost as lost:
                self._lost = True
                error: AgentError = AgentNotReached(str(lost), cause="AgentNotReached")
            except AgentNotReached as away:
                error = away
            pause_s = self._pause(error)
            if pause_s is None:
                raise self._given_up(error)
            self._recorder.retried(self._step, self._attempt, pause_s, error)
            await anyio.sleep(pause_s)

    async def _intend(self, agent: str) -> None:
        """Record that a task is to be begun."""
        self._known = {"agent": agent}
        if self._wanted.base:
            self._known["base"] = self._wanted.base
        self._call = self._wanted.since(self._wanted.base)
        self._waits = self._lost = False
        self._began = self._recorder.wall()
        await self._write(RecordStatus.INTENT)

    def _withdrawn(self, task: Mapping[str, Any]) -> bool:
        """Whether a task was stopped because the run had ended, before an operator's retry."""
        earlier = self._known.get("base", 0) < self._wanted.base
        return earlier and not self._call.task and state_of(task) == "canceled"

    async def _found(self) -> dict[str, Any] | None:
        """Return the task of a message that may have arrived; None where it is to be sent."""
        if not self._lost or self._agents.resends(self._known["agent"]):
            return None
        if self._call.task:
            return await self._found_answer()
        try:
            return await self._agents.find(self._known["agent"], self._call.context_id)
        except MessageLost as error:
            raise self._unknown(str(error)) from error

    async def _found_answer(self) -> dict[str, Any] | None:
        """Return the task that was answered, where the answer is in its history."""
        task = await self._agents.task(self._known["agent"], self._call.task)
        said = task.get("history") or []
        if any(each.get("messageId") == self._call.key for each in said if isinstance(each, dict)):
            return task
        if state_of(task) in ASKS:
            return None  # it still asks
        raise self._unknown("it does not ask any more, and does not say what it was told")

    async def _answer(self) -> dict[str, Any]:
        result = await self._agents.send(self._known["agent"], self._call.message)
        for kind in ("task", "message"):
            if isinstance(result.get(kind), dict):
                return dict(result[kind])
        raise AgentRejected(
            f"agent {self._known['agent']} answered with neither a task nor a message",
            cause="AgentRejected",
        )

    async def _taken(self, answer: Mapping[str, Any]) -> AgentReply | None:
        if "status" not in answer:
            return replied(self._known["agent"], answer)
        task_id = answer.get("id")
        if not isinstance(task_id, str) or not task_id:
            raise AgentRejected("its task has no id", cause="AgentRejected")
        if state_of(answer) in ENDED | ASKS:
            # A page of tasks has no artifacts in it, and an answer may be older than its task.
            return reply_of(self._known["agent"], await self._looked(task_id) or answer)
        self._known["task"] = task_id
        await self._write(RecordStatus.WAITING)
        self._waits = True
        return None

    # -- wait ----------------------------------------------------------------------------------

    async def _watched(self) -> AgentReply:
        """Look at the task until it has ended or asks."""
        missed = 0
        while True:
            task = await self._looked(self._known["task"])
            missed = 0 if task is not None else missed + 1
            if task is not None and self._withdrawn(task):
                return await self._begun_anew()
            if task is not None and state_of(task) in ENDED | ASKS:
                return reply_of(self._known["agent"], task)
            if missed > _MOST_MISSED:
                raise AgentNotReached(
                    f"agent {self._known['agent']} does not say what became of its task",
                    cause="AgentNotReached",
                )
            await self._rest()

    async def _begun_anew(self) -> AgentReply:
        await self._intend(self._known["agent"])
        with self._parking.acting:
            reply = await self._sent()
        return reply or await self._watched()

    async def _looked(self, task_id: str) -> dict[str, Any] | None:
        """Return a task as it is; None when the agent is away. Looking has no effect."""
        with self._parking.acting:
            await self._recorder.ready()
            try:
                return await self._agents.task(self._known["agent"], task_id)
            except (AgentNotReached, AgentUntrusted, MessageLost):
                return None  # also while its signature is not right: its task goes on

    async def _rest(self) -> None:
        now = self._recorder.wall()
        pause_s = min(_LATEST_S, max(_SOONEST_S, _SHARE * (now - self._began)))
        if self._call.timeout_s is not None:
            left = self._began + self._call.timeout_s - now
            if left <= 0:
                raise AgentTimeout(
                    f"agent {self._known['agent']} did not end task {self._known['task']!r} within"
                    f" {self._call.timeout_s:g} s",
                    cause="AgentTimeout",
                )
            pause_s = min(pause_s, left)
        with self._parking.waiting(now + pause_s):
            await anyio.sleep(pause_s)

    # -- write ---------------------------------------------------------------------------------

    async def _write(self, status: RecordStatus) -> None:
        record = self._recorder.record(
            self._step, status, dict(self._known), began=self._began, attempts=self._attempt
        )
        task = self._known.get("task", self._call.task)
        noted = withdrawals.Task(self._known["agent"], task, self._call.context_id)
        await self._recorder.write(self._step, record, task=withdrawals.noted(noted))

    async def _ended(self, reply: AgentReply) -> AgentReply:
        took_s = max(0.0, self._recorder.wall() - self._began)
        record = self._recorder.record(
            self._step,
            RecordStatus.OK,
            asdict(reply),
            attempts=max(1, self._attempt),
            began=self._began,
            took_s=took_s,
        )
        attempts = max(1, self._attempt)
        try:
            await self._recorder.write(self._step, record, task=b"")
        except PayloadTooLarge as error:
            rejected = AgentRejected(str(error), cause="AgentRejected")
            await self._recorder.fail(self._step, rejected, attempts, self._began, task=b"")
        return reply

    def _pause(self, error: AgentError) -> float | None:
        if not self._call.retry.retries(error):
            return None
        pause_s = self._call.retry.pause(self._attempt, self._recorder.environment.random)
        if pause_s is None or error.retry_after is None:
            return pause_s
        return max(pause_s, error.retry_after)

    def _given_up(self, error: AgentError) -> AgentError:
        return self._unknown(str(error)) if self._lost else error

    def _unknown(self, reason: str) -> AgentOutcomeUnknown:
        return AgentOutcomeUnknown(
            f"a message to agent {self._known['agent']} may have arrived ({reason}); its task is"
            f" looked for by contextId {self._call.context_id}",
            cause="AgentOutcomeUnknown",
        )
