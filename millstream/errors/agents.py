"""Errors of calls to other agents: what a workflow may catch, and a replay raises again."""

from __future__ import annotations

from millstream.errors.steps import CallError


class AgentError(CallError):
    """Another agent was asked for something, and its task came to no end that we know of."""


class AgentNotReached(AgentError):
    """The agent was not there, or would not take it, as often as it was tried."""

    retryable = True


class AgentRejected(AgentError):
    """The call can never succeed: an agent that is not declared, or one that refuses it."""


class AgentUntrusted(AgentRejected):
    """The agent's card has no signature of a key that is trusted with it. It was sent nothing."""


class AgentTimeout(AgentError):
    """The task did not end in time. It may go on at the agent as long as the run does."""


class AgentOutcomeUnknown(AgentError):
    """A message may have reached an agent that does not say whether it did."""
