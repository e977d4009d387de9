"""Errors of pipelines: workflows that are data."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors.root import UsageError


class InvalidPipeline(UsageError):
    """A pipeline that cannot run as it is written, or a reference in it that leads nowhere."""

    #: So many are told; the rest is counted.
    TOLD = 5

    def __init__(self, problems: Sequence[str]) -> None:
        more = len(problems) - self.TOLD
        told = "; ".join(problems[: self.TOLD]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(f"the pipeline cannot run: {told}")
        #: Everything that is wrong, each with its place.
        self.problems = tuple(problems)
