"""How fast runs come and go, from the counters that every look at a queue brings along.

Nothing is asked for it: whoever looks at the overview leaves a sample, and the next one is compared
with one of up to a minute ago. What is remembered is bounded, and belongs to this process alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

#: Samples closer together than this say little; older ones say how it was.
_APART_S = 2.0
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Runs a second that came, and that ended or were put aside."""

    came: float
    went: float


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    added: int
    gone: int


class Flow:
    """The pace of some queues."""

    def __init__(self, mono: Callable[[], float]) -> None:
        self._mono = mono
        self._samples: dict[str, deque[_Sample]] = {}

    def look(self, queue: str, added: int, gone: int) -> Pace | None:
        """Take a sample and return the pace since an earlier one; None when there is none yet."""
        now = _Sample(self._mono(), added, gone)
        samples = self._samples.setdefault(queue, deque())
        if samples and (added < samples[-1].added or gone < samples[-1].gone):
            samples.clear()  # Redis has forgotten
        while len(samples) > 1 and now.at - samples[1].at >= _WINDOW_S:
            samples.popleft()
        first = samples[0] if samples else now
        if not samples or now.at - samples[-1].at >= _APART_S:
            samples.append(now)
        took = now.at - first.at
        if took < _APART_S:
            return None
        return Pace((added - first.added) / took, (gone - first.gone) / took)
