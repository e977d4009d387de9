"""Trials of versions for programs without an event loop: the same verbs, blocking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal

from millstream.client.trials import Trials, TrialStatus
from millstream.model.trial import Trial


@dataclass(frozen=True, slots=True)
class SyncTrials:
    """The trials of one Redis. See `Trials`."""

    portal: BlockingPortal
    trials: Trials

    def start(self, workflow: str, **options: Any) -> Trial:
        """Give a share of the new runs of a workflow another version. See `Trials.start`."""
        return self.portal.call(partial(self.trials.start, workflow, **options))

    def list(self, queue: str = "default") -> Sequence[TrialStatus]:
        """Return the trials of a queue. See `Trials.list`."""
        return self.portal.call(self.trials.list, queue)

    def get(self, workflow: str, queue: str = "default") -> TrialStatus:
        """Return the trial of a workflow. See `Trials.get`."""
        return self.portal.call(self.trials.get, workflow, queue)

    def promote(self, workflow: str, *, queue: str = "default") -> Trial:
        """Give all new runs the version that was tried. See `Trials.promote`."""
        return self.portal.call(partial(self.trials.promote, workflow, queue=queue))

    def rollback(self, workflow: str, *, queue: str = "default", reason: str = "") -> Trial:
        """Give all new runs the kept version. See `Trials.rollback`."""
        return self.portal.call(partial(self.trials.rollback, workflow, queue=queue, reason=reason))

    def end(self, workflow: str, *, queue: str = "default") -> None:
        """Forget a trial that is over. See `Trials.end`."""
        self.portal.call(partial(self.trials.end, workflow, queue=queue))
