"""What keeps a run from being forked: raised before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors.root import UsageError


class UnknownStep(UsageError):
    """A run has no record of such a step."""

    def __init__(self, run_id: str, step: str, near: Sequence[str]) -> None:
        meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        super().__init__(
            f"run {run_id!r} has no record of step {step!r}{meant} (`millstream runs show` has all)"
        )
        self.run_id = run_id
        self.step = step
        self.near = tuple(near)
