"""Take a message: begin the run that it asks for, or give it to the run that it answers.

Promise: the same message again is the same run, or the same answer, whichever gateway takes it. A
run's conversation is written before the run is accepted, so nobody sees the one without the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from a2a.types.a2a_pb2 import Message, SendMessageRequest
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError
from google.protobuf.json_format import MessageToJson

from millstream.client import Client, Run
from millstream.store import conversations
from millstream.store.connection import Connection
from millstream.store.conversations import Subject
from millstream_gateway.a2a import answers, skills
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.names import thread_of
from millstream_gateway.a2a.pushes import Pushes
from millstream_gateway.a2a.seeing import visible
from millstream_gateway.a2a.tasks import Tasks, context_of
from millstream_gateway.auth.principals import Role
from millstream_gateway.auth.rates import Rates
from millstream_gateway.offered import offered


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was accepted."""

    run: Run
    #: Whether it began or answered something; else it was known before, and changed nothing.
    new: bool


class Intake:
    """Takes messages. ``default`` is the skill of messages that name none."""

    def __init__(
        self,
        client: Client,
        connection: Connection,
        tasks: Tasks,
        pushes: Pushes,
        *,
        enqueues: Rates,
        default: str | None,
    ) -> None:
        self._client = client
        self._connection = connection
        self._tasks = tasks
        self._pushes = pushes
        self._enqueues = enqueues
        self._default = default

    async def take(self, caller: Caller, request: SendMessageRequest) -> Taken:
        """Return the run that a message is about, once that is accepted."""
        if request.message.task_id:
            return await self._answer(caller, request)
        return await self._begin(caller, request)

    async def _begin(self, caller: Caller, request: SendMessageRequest) -> Taken:
        message = request.message
        content = skills.content_of(message)
        found = await offered(
            self._connection, caller.served, lambda q: caller.principal.may(Role.SUBMITTER, q)
        )
        skill = skills.wanted_skill(request, found, self._default)
        arguments = skills.arguments_of(message, content, skill)
        queue = caller.queue(Role.SUBMITTER, skill.queue)
        self._enqueues.take(caller.principal.name)
        thread = thread_of(caller.principal.acts_for, message.context_id, message.message_id)
        said = json.dumps(arguments, sort_keys=True)
        subject = Subject(queue, thread.run_id(message.message_id, skill.name, said))
        await conversations.begin(
            self._connection, subject, context=thread.context_id, owner=caller.principal.name
        )
        await self._keep(subject, message)
        await self._pushes.wish(subject, request)
        run = await self._client.enqueue(
            skill.described.name,
            arguments,
            id=subject.run_id,
            queue=queue,
            tenant=caller.principal.acts_for,
        )
        return Taken(run, run.created)

    async def _answer(self, caller: Caller, request: SendMessageRequest) -> Taken:
        message = request.message
        run, status = await visible(self._client, caller, message.task_id, Role.SUBMITTER)
        talk = await self._tasks.talk(run)
        if message.context_id not in {"", context_of(status, talk)}:
            raise InvalidParamsError("the task belongs to another conversation (contextId)")
        subject = Subject(run.queue, run.id)
        if talk.has(message.message_id):
            return Taken(run, new=False)
        if status.state.final:
            raise UnsupportedOperationError(f"the task has ended: {status.state}")
        await answers.answer(caller, run, status, message)
        # Kept when it was taken: one that is sent again is known by the run itself until then.
        await self._keep(subject, message)
        await self._pushes.wish(subject, request)
        return Taken(run, new=True)

    async def _keep(self, subject: Subject, message: Message) -> None:
        data = MessageToJson(message, indent=None).encode()
        await conversations.add(self._connection, subject, message.message_id, data)
