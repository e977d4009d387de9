"""Errors of steps: what a workflow may catch, and a replay raises again."""

from __future__ import annotations

from millstream.errors.root import MillstreamError


class StepError(MillstreamError):
    """A step ended badly. It is journaled: a replay raises it again."""

    def __init__(self, message: str, *, key: str = "", cause: str = "") -> None:
        super().__init__(message)
        #: The step's key in the journal.
        self.key = key
        #: The name of the original exception's class.
        self.cause = cause


class StepFailed(StepError):
    """A step raised, and its retries are used up or do not apply."""


class StepTimeout(StepError):
    """A step did not end within its timeout."""


class SignalTimeout(StepError):
    """No signal came in time. One that comes later is kept for the next wait."""


class ChildFailed(StepError):
    """A child run failed, was cancelled, or could not be started under its id."""

    def __init__(
        self, message: str, *, key: str = "", cause: str = "", run_id: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, key=key, cause=cause)
        #: The id of the child, and what its error said; ``cause`` names its error.
        self.run_id = run_id
        self.reason = reason


class CallError(StepError):
    """Something outside was called and gave no answer."""

    retryable = False  # may it be called again as it is?

    def __init__(
        self, message: str, *, key: str = "", cause: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, key=key, cause=cause)
        self.retry_after = retry_after  # seconds that we were asked to wait, where we were


class ToolError(CallError):
    """A tool call ended without an answer of the tool."""


class ToolNotSent(ToolError):
    """The call never reached the server: refused, unresolved, overloaded, or circuit open."""

    retryable = True


class ToolRejected(ToolError):
    """The call can never succeed: unknown server or tool, invalid arguments, forbidden."""


class ToolInterrupted(ToolError):
    """The call was sent and no answer came. It may have run. Retried only where that is safe."""


class OutcomeUnknown(ToolError):
    """A call that is not safe to repeat was sent, or may have been, and no answer is recorded."""


class InferenceError(CallError):
    """An inference ended without an answer of the model."""


class InferenceRejected(InferenceError):
    """The call can never succeed: unknown model or option, an input that is none."""


class ItemTooLarge(InferenceRejected):
    """An input that no device here has room for, or that is longer than the model takes."""


class InferenceFailed(InferenceError):
    """The model failed on this input, and would again."""


class InferenceOverloaded(InferenceError):
    """More waits for the model than may wait. Nothing was computed; try later."""

    retryable = True


class InferenceUnavailable(InferenceError):
    """The device or the server is away. Try later."""

    retryable = True


class DeadlineExceeded(InferenceError):
    """The answer did not come within the call's time."""
