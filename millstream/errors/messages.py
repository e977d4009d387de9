"""Errors of whoever says something to a run: a signal, an answer, a resolution."""

from __future__ import annotations

from millstream.errors.root import UsageError


class RunEnded(UsageError):
    """The run has ended, so nobody would ever take what was sent to it. Nothing was written."""

    def __init__(self, run_id: str, queue: str, state: str) -> None:
        super().__init__(f"run {run_id!r} in queue {queue!r} is {state} and takes nothing any more")
        self.run_id = run_id
        self.queue = queue
        self.state = state


class SignalsFull(UsageError):
    """More waits for the run than it may leave waiting. Nothing was written."""

    def __init__(self, run_id: str, queue: str, count: int, size: int) -> None:
        super().__init__(
            f"{count:,} signals or {size:,} bytes wait for run {run_id!r} in queue {queue!r}"
            " already; let it take some first, or mend the sender"
        )
        self.run_id = run_id
        self.queue = queue
        self.count = count
        self.size = size
