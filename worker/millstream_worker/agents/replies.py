"""What is said to an agent and what it answers, between the shapes of the protocol and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millstream.model.agent import AgentReply

#: States in which a task has ended, and in which it waits for whoever began it.
ENDED = frozenset({"completed", "failed", "canceled", "rejected"})
ASKS = frozenset({"input_required", "auth_required"})
_STATE = "TASK_STATE_"


def parts_of(message: Any) -> list[dict[str, Any]]:
    """Return a message as parts: texts as texts, anything else as data."""
    several = message if isinstance(message, list | tuple) else [message]
    return [
        {"text": each, "mediaType": "text/plain"}
        if isinstance(each, str)
        else {"data": each, "mediaType": "application/json"}
        for each in several
    ]


def state_of(task: Mapping[str, Any]) -> str:
    """Return the state of a task, in small letters; empty where it says none."""
    status = task.get("status")
    state = status.get("state") if isinstance(status, Mapping) else ""
    return str(state).removeprefix(_STATE).lower()


def reply_of(agent: str, task: Mapping[str, Any]) -> AgentReply:
    """Return what an agent answers with a task."""
    artifacts = [dict(each) for each in task.get("artifacts") or [] if isinstance(each, Mapping)]
    message = dict(task["status"]).get("message")
    said = dict(message) if isinstance(message, Mapping) else None
    brought = [part for each in artifacts for part in each.get("parts") or []]
    text, data = _read(brought or (said or {}).get("parts") or [])
    return AgentReply(
        state=state_of(task),
        agent=agent,
        text=text,
        data=data,
        task=str(task.get("id", "")),
        context=str(task.get("contextId", "")),
        artifacts=artifacts,
        message=said,
    )


def replied(agent: str, message: Mapping[str, Any]) -> AgentReply:
    """Return the reply of an agent that answered without a task."""
    text, data = _read(message.get("parts") or [])
    context = str(message.get("contextId", ""))
    return AgentReply(
        state="completed", agent=agent, text=text, data=data, context=context, message=dict(message)
    )


def _read(parts: Sequence[Any]) -> tuple[str, Any]:
    """Return the text of some parts, and their data: one value, several, or else the text."""
    known = [part for part in parts if isinstance(part, Mapping)]
    text = "\n".join(str(part["text"]) for part in known if "text" in part)
    data = [part["data"] for part in known if "data" in part]
    return text, (data[0] if len(data) == 1 else data) if data else text
