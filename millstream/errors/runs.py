"""How runs end badly, or not in time: raised where their results are awaited."""

from __future__ import annotations

from millstream.errors.root import MillstreamError


class RunError(MillstreamError):
    """A run reached a bad end. Raised by whoever waits for its result."""


class RunFailed(RunError):
    """The run failed, and its attempts are used up."""

    def __init__(self, run_id: str, cause: str, message: str) -> None:
        super().__init__(f"run {run_id!r} failed: {cause}: {message}")
        self.run_id = run_id
        #: The name of the error that ended it, such as ``ValueError`` or ``worker_lost``.
        self.cause = cause
        self.reason = message


class RunCancelled(RunError):
    """The run was cancelled."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled")
        self.run_id = run_id


class ResultTimeout(RunError, TimeoutError):
    """The run did not end within the time given. It goes on."""

    def __init__(
        self, run_id: str, timeout: float, state: str | None = None, waits_for: str | None = None
    ) -> None:
        where = ": ".join(said for said in (state, waits_for) if said)
        more = f" ({where})" if where else ""
        super().__init__(f"run {run_id!r} did not end within {timeout:g} s; it goes on{more}")
        self.run_id = run_id
        self.timeout = timeout
        #: Where it was when the time was over, and what it waits for, as in `RunStatus`.
        self.state = state
        self.waits_for = waits_for
