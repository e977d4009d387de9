"""How long a batch takes, as a law that is fitted to the batches that ran.

    seconds = max(least, fixed + per_item * n + per_token * n * L + per_square * n * L * L)

The least is what a device takes however small a batch is: the operations of a model have to be
begun one by one, and as long as that takes longer than computing them, computing costs nothing.

Under load nearly all batches are full, and of full batches alone nobody could tell what is fixed
from what an item adds. So samples of shapes that have become rare are kept beside the latest ones,
and are taken to have become slower or faster as these have.

Promise: the law is never decreasing in n or L, whatever was measured, and follows the device when
it slows down. It does not know what is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream_worker.inference import fitting
from millstream_worker.inference.shapes import Shape

#: A batch that ran, and its seconds.
Sample = tuple[Shape, float]

#: Batches that a fit looks at: enough to tell the terms apart, few enough to follow a change.
_WINDOW = 256
#: Samples of each size, in powers of two, that are kept when they are no longer among the latest.
_EACH = 3
#: A device counts as changed when its batches take so many times what they did, or so little.
_CHANGED = 1.25
#: A law with a least is believed when its error is so much smaller than that of one without; its
#: slope is fitted to batches that take so many times the least.
_BETTER, _LONGER = 0.8, 1.2
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
    #: No batch takes less.
    least: float = 0.0

    @property
    def overhead(self) -> float:
        """Seconds of a batch of nothing: what joining another one saves at most."""
        return max(self.least, self.fixed)

    def seconds(self, shape: Shape) -> float:
        """Return how long a batch of this shape takes."""
        return self.cost(shape.items, self.per_row(shape.longest))

    def cost(self, items: int, per_row: float) -> float:
        """Return how long a batch takes whose items cost so much each."""
        return max(self.least, self.fixed + items * per_row)

    def per_row(self, longest: int) -> float:
        """Return what one more item adds to a batch that is padded to ``longest``."""
        return self.per_item + longest * (self.per_token + longest * self.per_square)

    def falling(self, longest: int, most: int) -> list[float]:
        """Return how long batches of ``most`` items take, of one less, and so on down to one."""
        row, fixed, least = self.per_row(longest), self.fixed, self.least
        costs = [fixed + items * row for items in range(most, 0, -1)]
        return costs if costs[-1] >= least else [max(least, x) for x in costs]

    def scaled(self, ratio: float) -> Law:
        """Return the law of a device that takes so many times as long for everything."""
        return Law(
            fixed=self.fixed * ratio,
            per_item=self.per_item * ratio,
            per_token=self.per_token * ratio,
            per_square=self.per_square * ratio,
            least=self.least * ratio,
        )


#: Before anything ran: a small encoder on a processor. Wrong, and soon replaced.
FIRST_GUESS = Law(fixed=0.002, per_token=1e-5)


class CostLaw:
    """The law of one model on one device, kept up to date."""

    def __init__(self, guess: Law = FIRST_GUESS) -> None:
        self.law = guess
        self._latest: deque[Sample] = deque(maxlen=_WINDOW)
        #: By size, those that are no longer among the latest.
        self._older: dict[tuple[int, int], deque[Sample]] = {}
        #: Batches that were observed.
        self.count = 0

    @property
    def learned(self) -> bool:
        """Whether the law says more of the device than the guess did."""
        return len(self._latest) >= 3 or bool(self._older)

    @property
    def seen(self) -> Sequence[Sample]:
        """What the law is fitted to, with the seconds of each; the most telling last."""
        return [*self._latest, *(x for kept in self._older.values() for x in kept)]

    def recall(self, seen: Iterable[Sample]) -> None:
        """Begin with what was observed elsewhere, on such a device."""
        for shape, seconds in seen:
            self._add(shape, seconds)
        self.count = max(self.count, _EAGER)
        if self._latest:
            self.law = self._fitted()

    def observe(self, shape: Shape, seconds: float) -> None:
        """Take a batch that ran into account."""
        self._add(shape, seconds)
        self.count += 1
        if self.count <= _EAGER:
            self.law = self._fitted()
        elif self.count % _EVERY == 0:
            self.law = self._fitted()
            if self._follow():
                self.law = self._fitted()

    def seconds(self, shape: Shape) -> float:
        """Return how long a batch of this shape will take."""
        return self.law.seconds(shape)

    def _add(self, shape: Shape, seconds: float) -> None:
        if len(self._latest) == _WINDOW:
            self._age(*self._latest[0])
        self._latest.append((shape, max(seconds, 1e-6)))

    def _age(self, shape: Shape, seconds: float) -> None:
        self._older.setdefault(_size(shape), deque(maxlen=_EACH)).append((shape, seconds))

    def _follow(self) -> bool:
        """Where the latest samples say that the device has changed, have all others follow.

        Each is held against earlier ones of its own size: a law that is wrong for a size was so
        before.
        """
        latest, law = list(self._latest), self.law
        recent, before = latest[-_EVERY:], latest[:-_EVERY]
        usual = _usual(law, [*before, *(x for kept in self._older.values() for x in kept)])
        told = [(x, _off(law, x) / usual[_size(x[0])]) for x in recent if _size(x[0]) in usual]
        if len(told) < _EVERY // 2:
            return False
        ratio = _median(off for _, off in told)
        if 1 / _CHANGED < ratio < _CHANGED:
            return False
        for shape, _ in before:
            # As it used to be: some of them may be of after the change already.
            self._age(shape, law.seconds(shape) * usual[_size(shape)])
        for size, kept in self._older.items():
            scaled = [(shape, ratio * seconds) for shape, seconds in kept]
            self._older[size] = deque(scaled, maxlen=_EACH)
        now = [x for x in recent if _size(x[0]) not in usual]  # nothing speaks against these
        now += [x for x, off in told if 1 / _CHANGED < off / ratio < _CHANGED]
        self._latest = deque(now, maxlen=_WINDOW)
        return True

    def _fitted(self) -> Law:
        seen = self.seen
        if len({shape for shape, _ in seen}) < 3:
            # One or two points fix no law: keep the form of the guess and scale it.
            return self.law.scaled(_median(s / self.law.seconds(shape) for shape, s in seen))
        sloped = _linear(seen)
        bent = _bent(seen)
        if bent is not None and _error(bent, seen) < _BETTER * _error(sloped, seen):
            return bent
        return sloped


def _size(shape: Shape) -> tuple[int, int]:
    """Return the size that a shape is of, in powers of two."""
    return shape.items.bit_length(), shape.longest.bit_length()


def _off(law: Law, sample: Sample) -> float:
    return sample[1] / law.seconds(sample[0])


def _usual(law: Law, seen: Iterable[Sample]) -> dict[tuple[int, int], float]:
    """Return by size how many times what the law says batches used to take."""
    found: dict[tuple[int, int], list[float]] = {}
    for sample in seen:
        found.setdefault(_size(sample[0]), []).append(_off(law, sample))
    return {size: _median(values) for size, values in found.items()}


def _linear(seen: Sequence[Sample], least: float = 0.0) -> Law:
    rows = [(1.0, s.items, s.tokens, s.tokens * s.longest) for s, _ in seen]
    found = fitting.fit(rows, [seconds for _, seconds in seen])
    return Law(
        fixed=found[0], per_item=found[1], per_token=found[2], per_square=found[3], least=least
    )


def _bent(seen: Sequence[Sample]) -> Law | None:
    """Return a law with a least, and a slope for what takes longer; None where all is alike."""
    rising = sorted(seen, key=lambda sample: sample[0].tokens)
    least = _median(seconds for _, seconds in rising[: max(3, len(rising) // 4)])
    longer = [sample for sample in seen if sample[1] > _LONGER * least]
    if len({shape for shape, _ in longer}) < 3:
        return None
    return _linear(longer, least)


def _error(law: Law, seen: Sequence[Sample]) -> float:
    return sum((law.seconds(shape) / seconds - 1) ** 2 for shape, seconds in seen)


def _median(values: object) -> float:
    ordered = sorted(values)  # type: ignore[call-overload]
    return float(ordered[len(ordered) // 2])
