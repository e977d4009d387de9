"""What a queue refuses: it holds as much as it may."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.errors.root import StoreError


class QueueFull(StoreError):
    """The queue holds as many waiting runs as its limit allows. Safe to try again, later."""

    def __init__(self, queue: str, limit: int, depth: int, refused: Sequence[int] = ()) -> None:
        super().__init__(
            f"queue {queue!r} is full: {depth:,} runs wait where {limit:,} may; try again later,"
            f" add workers, or raise the limit with `millstream queues limit {queue} --depth N`"
        )
        self.queue = queue
        #: Of the lane that refused: a queue of several lanes gives each of them its part.
        self.limit = limit
        self.depth = depth
        #: Of many runs: the positions of those that were not accepted. The others were.
        self.refused = tuple(refused)
