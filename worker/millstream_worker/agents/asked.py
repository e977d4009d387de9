"""What a run asks of other agents, whoever answers: so that a run needs no HTTP to be simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from millstream.errors import AgentRejected


class MessageLost(Exception):
    """A message left us, and what became of it is not known. It never leaves the worker."""


class Agents(Protocol):
    """The agents of a worker. A task and a message are as the protocol spells them in JSON."""

    async def resolve(self, wanted: str) -> str:
        """Return the name of the declared agent that is meant. Raises `AgentRejected`."""

    def resends(self, agent: str) -> bool:
        """Whether an agent drops a message that it has had before."""

    async def send(self, agent: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message; return what answers it, under ``task`` or ``message``.

        Raises `AgentNotReached` when it did not leave us or was not taken, `AgentRejected`, or
        `MessageLost`.
        """

    async def task(self, agent: str, task_id: str) -> dict[str, Any]:
        """Return a task as it is. Raises as `send`."""

    async def find(self, agent: str, context_id: str) -> dict[str, Any] | None:
        """Return the task of a conversation; None when there is none. Raises as `send`."""

    async def cancel(self, agent: str, task_id: str) -> None:
        """Have an agent stop a task; that it cannot be stopped is an answer. Raises as `send`."""

    @property
    def names(self) -> frozenset[str]:
        """Which agents may be asked."""


class NoAgents:
    """Stands where no agent is declared."""

    async def resolve(self, wanted: str) -> str:
        """Refuse."""
        raise AgentRejected(
            f"no agent {wanted!r} is declared; start the worker with --agents FILE",
            cause="AgentRejected",
        )

    def resends(self, agent: str) -> bool:
        """Nobody is there to drop anything."""
        del agent
        return False

    async def send(self, agent: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse: a run began where the agent was declared, and goes on here."""
        del message
        return {"message": await self.task(agent, "")}

    async def task(self, agent: str, task_id: str) -> dict[str, Any]:
        """Refuse."""
        del task_id
        await self.resolve(agent)
        raise NotImplementedError

    async def find(self, agent: str, context_id: str) -> dict[str, Any] | None:
        """Refuse."""
        return await self.task(agent, context_id)

    async def cancel(self, agent: str, task_id: str) -> None:
        """Refuse."""
        await self.task(agent, task_id)

    @property
    def names(self) -> frozenset[str]:
        """There are none."""
        return frozenset()
