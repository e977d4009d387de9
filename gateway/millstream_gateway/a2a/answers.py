"""A message to a task that goes on: the answer to what it asks.

What it answers stands in its metadata (``answers``: a question's key, a signal's name, a step); a
task that waits for one thing need not be told. A signal is taken once for each message id, the
first answer to a question stands: so a message that is sent again changes nothing.

Whoever may start a task may answer it with a signal. Questions that a workflow asks of people
(``ctx.approve``), what a tool asks of them, and what became of a call, are for operators to answer:
an agent that begins a task must not be able to approve of it itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from a2a.types.a2a_pb2 import Message
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    UnsupportedOperationError,
)

from millstream.client import Run
from millstream.errors import UsageError
from millstream.model.message import MessageKind
from millstream.model.run import RunStatus
from millstream.store import conversations
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.files import FILES
from millstream_gateway.a2a.skills import Content, content_of
from millstream_gateway.a2a.tasks import ANSWERABLE, awaited
from millstream_gateway.a2a.values import plain_struct
from millstream_gateway.auth.principals import Role

#: In the metadata of a message: which of several things it answers.
ANSWERS = "answers"
_YES = frozenset({"yes", "y", "approve", "approved", "ok", "okay", "true"})
_NO = frozenset({"no", "n", "reject", "rejected", "deny", "denied", "false"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a run waits for."""

    kind: MessageKind
    name: str


async def answer(caller: Caller, run: Run, status: RunStatus, message: Message) -> None:
    """Give a message to a run that waits for it. Raises what the protocol calls it."""
    content = content_of(message)
    asked = _asked(status, plain_struct(message.metadata).get(ANSWERS))
    if content.files and asked.kind is not MessageKind.SIGNAL:
        raise ContentTypeNotSupportedError("a file answers no question; signals take them")
    match asked.kind:
        case MessageKind.SIGNAL:
            # By a hash of the message's id: ids of signals are never sealed.
            known_by = conversations.mark_of(message.message_id)
            await run.signal(asked.name, payload_of(content), id=known_by)
        case MessageKind.APPROVAL:
            caller.queue(Role.OPERATOR, run.queue)
            approved, comment = _verdict(content)
            await run.approve(asked.name, approved, by=caller.principal.name, comment=comment)
        case MessageKind.INPUT:
            caller.queue(Role.OPERATOR, run.queue)
            await run.answer(dict(content.data), asked.name)
        case _:
            caller.queue(Role.OPERATOR, run.queue)
            await run.resolve(asked.name, _resolution(content))


def payload_of(content: Content) -> Any:
    """Return what a signal carries: the data where there is some, else the text; and files.

    Raises `InvalidParamsError` where they do not go together.
    """
    if content.files:
        if content.value is not None or FILES in content.data:
            raise InvalidParamsError(
                f"beside files the data of a signal is an object without {FILES!r}"
            )
        said = {"message": content.text} if content.text else {}
        return {**said, **content.data, FILES: list(content.files)}
    if content.value is not None:
        return content.value
    return dict(content.data) if content.data else content.text


def _asked(status: RunStatus, named: Any) -> Asked:
    asked = [Asked(kind, name) for kind in ANSWERABLE for name in awaited(status, kind)]
    if named is None and len(asked) == 1:
        return asked[0]
    found = next((each for each in asked if each.name == named), None)
    if found is not None:
        return found
    if isinstance(named, str) and not status.state.final:
        # It may come before it is asked for: a signal is kept until then.
        return Asked(MessageKind.SIGNAL, named)
    names = ", ".join(repr(each.name) for each in asked)
    if not asked:
        raise UnsupportedOperationError(
            f"the task is {status.state} and asks for nothing; wait until it does, or say which"
            f' signal this is: "metadata": {{"{ANSWERS}": NAME}}'
        )
    raise InvalidParamsError(
        f'the task asks for {names}; say which is answered: "metadata": {{"{ANSWERS}": NAME}}'
    )


def _verdict(content: Content) -> tuple[bool, str | None]:
    """Return yes or no, and why. Raises `InvalidParamsError` for what is neither."""
    told = content.data.get("approved")
    comment = content.data.get("comment", content.text or None)
    if isinstance(told, bool) and isinstance(comment, str | None):
        return told, comment
    word, _, rest = content.text.strip().partition(" ")
    word = word.strip(".,;:!").lower()
    if not content.data and word in _YES | _NO:
        return word in _YES, rest.strip() or None
    raise InvalidParamsError(
        'this is a question: answer yes or no, or with data: {"approved": true, "comment": "..."}'
    )


def _resolution(content: Content) -> str | Mapping[str, Any]:
    verdict = content.data.get("verdict", content.text.strip().lower())
    if verdict in {"retry", "fail"}:
        return str(verdict)
    if "result" in content.data:
        return {"result": content.data["result"]}
    raise UsageError('say retry or fail, or with data what it returned: {"result": ...}')
