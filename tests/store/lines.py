"""Limits as the model knows them: who holds a permit, and who stands in line for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What first has begun, then by level: where in the line a run stands.
RANKS: Mapping[str, int] = {"high": 1, "normal": 2, "low": 3}
#: The limits of the model, and how many may go on under each.
MOST: Mapping[str, int] = {"one": 1, "two": 2}


@dataclass(slots=True)
class Line:
    """One limit."""

    most: int
    #: Run id -> the fence it was granted under, 0 while nobody has taken the run.
    holders: dict[str, int] = field(default_factory=dict)
    #: Run id -> its rank, when it was enqueued, and its id.
    waiting: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether there is no permit left."""
        return len(self.holders) >= self.most

    @property
    def order(self) -> list[str]:
        """Who waits, the first of them first."""
        return sorted(self.waiting, key=lambda run_id: self.waiting[run_id])


def lines() -> dict[str, Line]:
    """The limits, with nobody there."""
    return {name: Line(most) for name, most in MOST.items()}
