"""The size of a batch: how many items, and how long the longest is once all are padded to it.

Costs in time and in bytes are laws over these numbers; what the items are does not matter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """``items`` of at most ``longest`` tokens each."""

    items: int
    longest: int

    @property
    def tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return self.items * self.longest


def padded(length: int, step: int) -> int:
    """Return a length as it is computed: rounded up to a multiple of ``step``."""
    return max(step, -(-length // step) * step)


def shape_of(lengths: Sequence[int], step: int) -> Shape:
    """Return the shape of a batch of items of these lengths."""
    return Shape(len(lengths), padded(max(lengths), step))
