"""How many bytes a batch needs at its peak, as a law fitted to what was observed.

    bytes = fixed + per_item * n + per_token * n * L + per_square * n * L * L

Promise: no batch that was observed is predicted below what it took, and what is predicted is
multiplied by a guard that follows the latest errors. After the device ran out of memory the law
is distrusted at once, and trusted again slowly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream_worker.inference import fitting
from millstream_worker.inference.shapes import Shape

MIB = 1024 * 1024
_WINDOW = 200
_EVERY = 200
_EAGER = 16
_LEAST_GUARD, _MOST_GUARD = 1.05, 2.0
#: What a batch may still be once memory ran out, and how it recovers.
_CUT, _GROWTH, _CLEAN = 0.7, 1.02, 50
_LARGEST_STEP, _MOST_DISTRUST = 3.0, 64.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Peak bytes of a batch by its shape, above what the model holds anyway."""

    fixed: float = 0.0
    per_item: float = 0.0
    per_token: float = 0.0
    per_square: float = 0.0

    def of(self, shape: Shape) -> float:
        """Return the bytes of a batch of this shape."""
        return self.fixed + shape.items * self.per_row(shape.longest)

    def per_row(self, longest: int) -> float:
        """Return what one more item adds to a batch that is padded to ``longest``."""
        return self.per_item + longest * (self.per_token + longest * self.per_square)


class Footprint:
    """The law of one model on one device, kept up to date."""

    def __init__(self, guess: Bytes) -> None:
        self.law = guess
        self.guard = _LEAST_GUARD
        #: What the law is multiplied by after memory ran out where it said it would not.
        self.distrust = 1.0
        self._ratios: deque[float] = deque(maxlen=_WINDOW)
        #: The largest batch that was seen of each size, in powers of two: large batches are rare,
        #: and a law fitted to the many small ones would forget them.
        self._kept: dict[tuple[int, int], tuple[Shape, float]] = {}
        self._count = 0
        self._clean = 0

    @property
    def seen(self) -> Sequence[tuple[Shape, float]]:
        """What the law is fitted to: the largest batch of each size, with its peak."""
        return list(self._kept.values())

    def recall(self, seen: Iterable[tuple[Shape, float]]) -> None:
        """Begin with what was observed elsewhere, on such a device."""
        for shape, peak in seen:
            self._keep(shape, peak)
        if self._kept:
            self._count = _EAGER
            self._refit()
            self._follow()

    def predict(self, shape: Shape, *, trusting: bool = False) -> int:
        """Return the bytes that a batch of this shape has to be admitted for.

        ``trusting``: as if memory had never run out.
        """
        return int(self.law.of(shape) * self.guard * (1.0 if trusting else self.distrust))

    def most_items(self, longest: int, room: float) -> int:
        """Return how many items padded to ``longest`` fit into ``room`` bytes."""
        factor = self.guard * self.distrust
        left = room / factor - self.law.fixed
        row = self.law.per_row(longest)
        if left < 0:
            return 0
        return int(left / row) if row > 0 else 1_000_000

    def observe(self, shape: Shape, peak: int) -> float:
        """Take a batch that ran into account; return observed over predicted."""
        predicted = self.law.of(shape) * self.guard * self.distrust
        self._ratios.append(peak / max(self.law.of(shape), 1.0))
        self._keep(shape, float(peak))
        self._count += 1
        # What was seen to fit is better than a fear.
        self.distrust = max(1.0, 0.95 * self.distrust)
        if self._count <= _EAGER or self._count % _EVERY == 0 or peak > predicted:
            self._refit()
        self._follow()
        return peak / max(predicted, 1.0)

    def ran_out(self, shape: Shape, room: float) -> None:
        """Memory ran out at a batch that was predicted to fit into ``room`` bytes."""
        self._clean = 0
        # The batch needed more than there was, as it seems: the law must say so from now on. Not
        # all of that at once: a device may refuse for reasons of its own.
        said = self.law.of(shape) * self.guard * self.distrust
        factor = max(1 / _CUT, min(_LARGEST_STEP, 1.01 * room / max(said, 1.0)))
        self.distrust = min(_MOST_DISTRUST, self.distrust * factor)

    def _follow(self) -> None:
        self.guard = min(_MOST_GUARD, max(_LEAST_GUARD, 1.02 * max(self._ratios)))

    def _keep(self, shape: Shape, peak: float) -> None:
        place = (shape.items.bit_length(), shape.longest.bit_length())
        before = self._kept.get(place)
        # The newest of a size replaces the older one, unless that was larger.
        if before is None or peak >= 0.98 * before[1] or shape.tokens >= before[0].tokens:
            self._kept[place] = (shape, peak)

    def _refit(self) -> None:
        seen: Sequence[tuple[Shape, float]] = list(self._kept.values())
        if len({shape for shape, _ in seen}) < 3:
            ratio = max(peak / max(self.law.of(shape), 1.0) for shape, peak in seen)
            self._scale(ratio)
        else:
            rows = [(1.0, s.items, s.tokens, s.tokens * s.longest) for s, _ in seen]
            a, b, c, d = fitting.fit(rows, [max(peak, 1.0) for _, peak in seen])
            self.law = Bytes(fixed=a, per_item=b, per_token=c, per_square=d)
            # No sample may be under-predicted.
            missing = max(peak - self.law.of(shape) for shape, peak in seen)
            if missing > 0:
                self.law = Bytes(fixed=a + missing, per_item=b, per_token=c, per_square=d)
        self._ratios = deque(
            (peak / max(self.law.of(shape), 1.0) for shape, peak in seen), maxlen=_WINDOW
        )

    def _scale(self, ratio: float) -> None:
        law = self.law
        self.law = Bytes(
            fixed=law.fixed * ratio,
            per_item=law.per_item * ratio,
            per_token=law.per_token * ratio,
            per_square=law.per_square * ratio,
        )

    def ran(self) -> None:
        """A batch ran whose bytes nobody measured."""
        self._clean += 1
        if self._clean % _CLEAN == 0:
            self.distrust = max(1.0, self.distrust / _GROWTH)
