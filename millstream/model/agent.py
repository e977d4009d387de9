"""What another agent answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReply:
    """Where another agent's task has come to. One that failed is an answer too, not raised."""

    #: ``completed``, ``failed``, ``canceled``, ``rejected``, ``input_required``, ``auth_required``.
    state: str
    #: The declared name of the agent.
    agent: str
    #: All text of what it brought about, or of what it says where it brought about nothing.
    text: str = ""
    #: The data of what it brought about, where there is some; else the text.
    data: Any = None
    #: Its name of the task and of the conversation; empty where it answered without a task.
    task: str = ""
    context: str = ""
    #: What it brought about, and what it says, as it sent them.
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    message: dict[str, Any] | None = None

    @property
    def completed(self) -> bool:
        """Whether it did what it was asked for."""
        return self.state == "completed"

    @property
    def asks(self) -> bool:
        """Whether it wants an answer: ``ctx.agent(..., reply_to=reply)``."""
        return self.state in {"input_required", "auth_required"}
