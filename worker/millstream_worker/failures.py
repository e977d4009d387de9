"""The failures of steps as they come back from a journal: by name, and by no other."""

from __future__ import annotations

from millstream import errors
from millstream.errors import StepError

#: What a recorded failure is raised as again. Only errors of steps are ever recorded.
FAILURES: dict[str, type[StepError]] = {
    cls.__name__: cls
    for cls in (
        errors.StepFailed,
        errors.StepTimeout,
        errors.SignalTimeout,
        errors.ToolNotSent,
        errors.ToolRejected,
        errors.ToolInterrupted,
        errors.OutcomeUnknown,
        errors.InferenceRejected,
        errors.ItemTooLarge,
        errors.InferenceFailed,
        errors.InferenceOverloaded,
        errors.InferenceUnavailable,
        errors.DeadlineExceeded,
        errors.AgentNotReached,
        errors.AgentRejected,
        errors.AgentUntrusted,
        errors.AgentTimeout,
        errors.AgentOutcomeUnknown,
    )
}
