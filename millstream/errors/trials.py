"""What is wrong with a trial of a version: raised before anything is written."""

from __future__ import annotations

from millstream.errors.root import UsageError


class UnknownTrial(UsageError):
    """No version of the workflow is on trial."""

    def __init__(self, workflow: str, queue: str) -> None:
        super().__init__(
            f"no version of {workflow!r} is on trial in queue {queue!r};"
            " `millstream canary status` shows what is"
        )
        self.workflow = workflow
        self.queue = queue


class TrialConflict(UsageError):
    """Somebody else has changed the trial at the same time, or it does not stand as was thought."""

    def __init__(self, workflow: str, queue: str, reason: str | None = None) -> None:
        super().__init__(
            f"the trial of {workflow!r} in queue {queue!r} "
            + (reason or "was changed by somebody else just now; look at it, and say it again")
        )
        self.workflow = workflow
        self.queue = queue
        self.reason = reason
