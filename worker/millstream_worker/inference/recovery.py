"""What a batch that failed becomes: smaller batches, until only the guilty are left.

Pure: decides, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

from millstream_worker.inference.items import Item


def split_by_size(items: Sequence[Item]) -> list[list[Item]]:
    """Cut a batch that was too large into two of about the same padded size.

    The longest set the size of all: apart from them the others shrink by more than a half.
    """
    ordered = sorted(items, key=lambda item: item.length)
    longest = ordered[-1].length
    cut = min(
        range(1, len(ordered)),
        key=lambda k: max(k * ordered[k - 1].length, (len(ordered) - k) * longest),
    )
    return [ordered[:cut], ordered[cut:]]


@dataclass(slots=True)
class Hunt:
    """The search for the items that make a batch fail, by halving."""

    size: int
    #: Failed runs since one last succeeded.
    fruitless: int = 0

    @property
    def hopeless(self) -> bool:
        """Whether everything fails: then the fault is not in one item, and the search ends."""
        return self.fruitless > 2 * ceil(log2(max(2, self.size))) + 2

    @staticmethod
    def halves(items: Sequence[Item]) -> list[list[Item]]:
        """Cut a batch in two."""
        middle = len(items) // 2
        return [list(items[:middle]), list(items[middle:])]
