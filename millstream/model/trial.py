"""A version of a workflow on trial: some new runs get it, and it is judged by how they end.

The rule alone: it knows neither Redis nor who counts. The alert `CanaryFails` says the same in the
language of Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from millstream.errors import UsageError
from millstream.model.run import FINAL, RunState

#: How long runs count, in seconds: what went well for a day must not outweigh the last minutes.
WINDOW_S = 300.0
#: Shares are kept in ten-thousandths.
PARTS = 10_000


class Phase(StrEnum):
    """How far a trial has come."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a trial."""

    workflow: str
    #: The version that is tried, and the one that the others get.
    version: str
    kept: str
    #: Of new runs that name no version, 0 to 1.
    share: float
    phase: Phase = Phase.RUNNING
    #: Epoch seconds.
    started: float
    changed: float
    #: By how much its failure rate may lie above that of the kept version, and how many of its runs
    #: must have ended before that is judged.
    threshold: float = 0.1
    minimum: int = 20
    #: Whether it is rolled back by itself.
    automatic: bool = True
    #: Why it is in its phase, where somebody or something has said so.
    reason: str = ""

    @property
    def parts(self) -> int:
        """The share as scripts know it."""
        return round(self.share * PARTS)

    def checked(self) -> Trial:
        """Return it, or raise `UsageError` for what could not be meant."""
        if not 0 < self.share <= 1:
            raise UsageError(f"a share is more than 0 % and at most 100 %, not {self.share:.2%}")
        if self.version == self.kept:
            raise UsageError(f"version {self.version} cannot be tried beside itself")
        if not 0 < self.threshold < 1 or self.minimum < 1:
            raise UsageError(
                "a threshold lies between 0 and 1 (0.1: ten of a hundred runs more fail), and at"
                " least one run must have ended before a trial is judged"
            )
        return self


@dataclass(frozen=True, slots=True)
class Tally:
    """How runs of one version ended."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Tally:
        """Return a tally of counts by state; states that are no end do not count."""
        return cls(**{state: counts.get(state, 0) for state in FINAL})

    def since(self, before: Tally) -> Tally:
        """Return what was added after an earlier tally of the same runs."""
        return Tally(*(max(0, now - then) for now, then in zip(self.row, before.row, strict=True)))

    @property
    def row(self) -> tuple[int, int, int]:
        """The counts, in the order of the fields."""
        return self.completed, self.failed, self.cancelled

    @property
    def total(self) -> int:
        """Runs that ended."""
        return sum(self.row)

    @property
    def rate(self) -> float:
        """The share of them that failed; 0 while there are none."""
        return self.failed / self.total if self.total else 0.0

    def count(self, state: RunState) -> int:
        """How many ended in a state."""
        return int(getattr(self, state))


def fails(trial: Trial, tried: Tally, kept: Tally) -> bool:
    """Whether a version does worse than the kept one, by more than chance and its owner allow."""
    return tried.total >= trial.minimum and tried.rate - kept.rate > trial.threshold
