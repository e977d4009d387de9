"""How long a batch takes, as a law that is fitted to the batches that ran.

    seconds = fixed + per_item * n + per_token * n * L + per_square * n * L * L

Promise: the law is never decreasing in n or L, whatever was measured, and follows the device when
it slows down. It does not know what is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream_worker.inference import fitting
from millstream_worker.inference.shapes import Shape

#: Batches that a fit looks at: enough to tell the terms apart, few enough to follow a change.
_WINDOW = 256
#: A fit is made at every batch up to here, then at every so many.
_EAGER = 8
_EVERY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Seconds of a batch by its shape."""

    fixed: float
    per_item: float = 0.0
    per_token: float = 0.0
    per_square: float = 0.0

    def seconds(self, shape: Shape) -> float:
        """Return how long a batch of this shape takes."""
        return self.fixed + shape.items * self.per_row(shape.longest)

    def per_row(self, longest: int) -> float:
        """Return what one more item adds to a batch that is padded to ``longest``."""
        return self.per_item + longest * (self.per_token + longest * self.per_square)


#: Before anything ran: a small encoder on a processor. Wrong, and soon replaced.
FIRST_GUESS = Law(fixed=0.002, per_token=1e-5)


class CostLaw:
    """The law of one model on one device, kept up to date."""

    def __init__(self, guess: Law = FIRST_GUESS) -> None:
        self.law = guess
        self._seen: deque[tuple[Shape, float]] = deque(maxlen=_WINDOW)
        #: Batches that were observed.
        self.count = 0

    @property
    def learned(self) -> bool:
        """Whether the law says more of the device than the guess did."""
        return len(self._seen) >= 3

    @property
    def seen(self) -> Sequence[tuple[Shape, float]]:
        """The latest batches, with the seconds that they took."""
        return list(self._seen)

    def recall(self, seen: Iterable[tuple[Shape, float]]) -> None:
        """Begin with what was observed elsewhere, on such a device."""
        self._seen.extend(seen)
        self.count = max(self.count, _EAGER)
        if self._seen:
            self.law = self._fitted()

    def observe(self, shape: Shape, seconds: float) -> None:
        """Take a batch that ran into account."""
        self._seen.append((shape, max(seconds, 1e-6)))
        self.count += 1
        if self.count <= _EAGER or self.count % _EVERY == 0:
            self.law = self._fitted()

    def seconds(self, shape: Shape) -> float:
        """Return how long a batch of this shape will take."""
        return self.law.seconds(shape)

    def _fitted(self) -> Law:
        shapes = {shape for shape, _ in self._seen}
        if len(shapes) < 3:
            # One or two points fix no law: keep the form of the guess and scale it.
            ratio = _median(s / self.law.seconds(shape) for shape, s in self._seen)
            law = self.law
            return Law(
                fixed=law.fixed * ratio,
                per_item=law.per_item * ratio,
                per_token=law.per_token * ratio,
                per_square=law.per_square * ratio,
            )

        rows = [(1.0, s.items, s.tokens, s.tokens * s.longest) for s, _ in self._seen]
        found = fitting.fit(rows, [seconds for _, seconds in self._seen])
        return Law(fixed=found[0], per_item=found[1], per_token=found[2], per_square=found[3])


def _median(values: object) -> float:
    ordered = sorted(values)  # type: ignore[call-overload]
    return float(ordered[len(ordered) // 2])
