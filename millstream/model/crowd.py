"""Who gives way where there is no room for all: decided by where they come from.

Promise: whoever brings many is in the way of none but its own, as long as others bring fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def gives_way(those: Mapping[T, str]) -> T:
    """Return the oldest of whoever has most; ``those`` are by age, the oldest first, with whose.

    The oldest of all might be a probe's, and a flood would get a process killed by it.
    """
    counts = Counter(those.values())
    most = max(counts, key=counts.__getitem__)
    return next(each for each, whose in those.items() if whose == most)
