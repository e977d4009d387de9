"""What happens around runs: messages of agents, scores, waits for room, spans on their way."""

from __future__ import annotations

from millstream.events.root import Happening


class MessageSent(Happening, frozen=True, kw_only=True):
    """An agent was sent a message; ``took_s`` until it answered, where it did."""

    kind: str
    recipient: str
    took_s: float | None = None


class MessageReceived(Happening, frozen=True, kw_only=True):
    """An agent sent a message; ``took_s`` until it was answered, where it was."""

    kind: str
    sender: str
    took_s: float | None = None


class TaskLeft(Happening, frozen=True, kw_only=True):
    """A run had ended, and its task at another agent could not be stopped: it may go on there."""

    run_id: str
    queue: str
    agent: str
    #: Empty where the agent may have a task of which only the conversation is known.
    task: str
    reason: str


class AgentDiscovered(Happening, frozen=True, kw_only=True):
    """Somebody asked for an agent with a capability."""

    capability: str
    status: str


class Scored(Happening, frozen=True, kw_only=True):
    """A workflow said how satisfied a customer is."""

    run_id: str
    workflow: str
    queue: str
    value: float


class RoomAwaited(Happening, frozen=True, kw_only=True):
    """So many calls of this process wait for room at what its queue's workers share."""

    queue: str
    room: str
    waiting: int


class SpansLeft(Happening, frozen=True, kw_only=True):
    """Spans left for the collector, or did not. ``outcome``: exported, failed or dropped."""

    outcome: str
    spans: int
