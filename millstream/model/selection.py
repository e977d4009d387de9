"""Which runs are meant: what an operator says of those to list, to cancel or to start again."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream.errors import UsageError
from millstream.model.attributes import Attributes, among
from millstream.model.run import RunState, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Runs in these states that fit all that is said; None says nothing."""

    states: frozenset[RunState] = frozenset(RunState)
    workflow: str | None = None
    tenant: str | None = None
    #: The cause of a failure, such as ``ValueError`` or ``worker_lost``.
    cause: str | None = None
    #: When it was enqueued, in epoch seconds: not before, and before.
    since: float | None = None
    until: float | None = None
    #: It waits, queued, for a permit of a limit.
    limited: bool = False
    #: All of these are written on it.
    attributes: Attributes = field(default_factory=dict)

    def matches(self, status: RunStatus) -> bool:
        """Whether a run is among them."""
        enqueued = status.times.enqueued
        return (
            status.state in self.states
            and self.workflow in {None, status.workflow}
            and self.tenant in {None, status.tenant}
            and (self.cause is None or (status.error or "").partition(":")[0] == self.cause)
            and (self.since is None or enqueued >= self.since)
            and (self.until is None or enqueued < self.until)
            and not (self.limited and not status.is_limited)
            and among(self.attributes, status.attributes)
        )


def states(words: object) -> frozenset[RunState]:
    """Return states by their names. Raises `UsageError` that names them all."""
    try:
        return frozenset(RunState(word) for word in words)  # type: ignore[attr-defined]
    except ValueError as error:
        raise UsageError(f"{error}; there are {', '.join(RunState)}") from None
