"""Which of the waiting items leave together.

Padding makes the longest item of a batch set the price of all. So what waits is sorted by length
and cut into groups at the least total cost, and the group that holds the most urgent item is the
one that leaves: every launch serves the head of the queue, and nothing starves.

Pure: the same items and the same laws give the same answer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millstream_worker.inference.costs import Law
from millstream_worker.inference.shapes import padded

#: Items that a plan looks at. More would find little and cost time while the device waits.
WINDOW = 256
#: Lengths this close together are not worth cutting apart.
_EVEN = 1.3
#: What an item is worth at the least, in seconds: also where a law finds only a fixed cost.
_LEAST = 1e-12
#: Prices this close together are the same: the larger group is the better one then.
_SAME = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What a batch may be at most."""

    items: int
    tokens: int
    #: Items that fit into memory when padded to a length.
    fitting: Callable[[int], int]
    #: Lengths are padded to a multiple of this.
    step: int = 8
    #: Whether padding is computed at all. Where it is not, length is no reason to part.
    padding: bool = True

    def most(self, longest: int) -> int:
        """Return how many items of a padded length may leave together; 1 at the least.

        Whether one alone fits is for whoever admits it: here it is the smallest batch there is.
        """
        return max(1, min(self.items, self.tokens // longest, self.fitting(longest)))


def choose(lengths: Sequence[int], head: int, law: Law, caps: Caps) -> list[int]:
    """Return the positions that leave with the one at ``head``.

    ``lengths`` are those of the waiting items, the most urgent first.
    """
    if len(lengths) == 1:
        return [0]
    if not caps.padding:
        return _in_order(lengths, head, caps)

    longest = padded(max(lengths), caps.step)
    if padded(min(lengths), caps.step) == longest:
        # Every one costs the same: the most urgent leave.
        others = [x for x in range(len(lengths)) if x != head]
        return [head, *others[: caps.most(longest) - 1]]
    if len(lengths) <= caps.most(longest) and max(lengths) * len(lengths) <= _EVEN * sum(lengths):
        return list(range(len(lengths)))

    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    rising = _rounded([lengths[i] for i in order], caps.step)
    cuts = partition(rising, law, caps)
    place = order.index(head)
    group = next(cut for cut in cuts if cut[0] <= place < cut[1])
    start, end = _widened(rising, group, law, caps)
    return order[start:end]


def _rounded(rising: Sequence[int], step: int) -> list[int]:
    """Return lengths as they are computed; each that occurs is worked out once."""
    known = {length: padded(length, step) for length in set(rising)}
    return [known[length] for length in rising]


def partition(lengths: Sequence[int], law: Law, caps: Caps) -> list[tuple[int, int]]:
    """Cut padded lengths, in rising order, into groups ``[start, end)`` at the least total cost."""
    costs = [0.0]
    sizes = [0]
    rows: list[float] = []
    last = -1
    for end, longest in enumerate(lengths, start=1):
        if longest != last:
            last = longest
            rows = law.falling(longest, caps.most(longest))
        # The largest group first. No loop of our own: this runs thousands of times between two
        # batches, and the device waits meanwhile.
        most = min(len(rows), end)
        sums = list(map(operator.add, costs[end - most : end], rows[len(rows) - most :]))
        best = min(sums)
        costs.append(best)
        sizes.append(most - sums.index(best))

    cuts = []
    end = len(lengths)
    while end:
        cuts.append((end - sizes[end], end))
        end -= sizes[end]
    return cuts[::-1]


def _widened(
    lengths: Sequence[int], group: tuple[int, int], law: Law, caps: Caps
) -> tuple[int, int]:
    """Let neighbours join a group as long as that lowers its cost for what it computes.

    A cut of what waits leaves a rest, which would be cheap to leave for last; but the head may
    stand in it, and more will come for the others to leave with. A law in which a term is missing
    may find nothing to gain by that, and nothing to lose: then they join too.
    """
    start, end = group
    known = {length: max(_LEAST, law.per_row(length)) for length in set(lengths)}
    rows = [known[length] for length in lengths]
    worth = sum(rows[start:end])
    price = law.cost(end - start, rows[end - 1]) / worth
    while end - start < len(lengths):
        best = None
        for low, high in ((start - 1, end), (start, end + 1)):
            if low < 0 or high > len(lengths) or high - low > caps.most(lengths[high - 1]):
                continue
            gain = worth + (rows[low] if low < start else rows[high - 1])
            found = law.cost(high - low, rows[high - 1]) / gain
            if found <= price * _SAME and (best is None or found < best[0]):
                best = found, gain, low, high
        if best is None:
            break
        price, worth, start, end = best
    return start, end


def _in_order(lengths: Sequence[int], head: int, caps: Caps) -> list[int]:
    """Without padding: the head, then the others by urgency, as long as they fit."""
    chosen = [head]
    tokens = longest = lengths[head]
    for index, length in enumerate(lengths):
        if index == head:
            continue
        longest = max(longest, length)
        fits = min(caps.items, caps.fitting(padded(longest, caps.step)))
        if len(chosen) >= fits or tokens + length > caps.tokens:
            break
        tokens += length
        chosen.append(index)
    return chosen
