"""The slots of a continuous model on one device: who has one, who takes one, who has to go.

An item is let in only if its whole length, prompt and longest answer, is predicted to fit beside
those of all the others. So none of them runs out of memory by growing, unless a neighbour grows:
then the least urgent give up their slots, and go on later from what was written of them.

An item under which the model failed joins alone, and under the second failure it has all slots to
itself, so that it is known who did it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millstream_worker.inference.items import Item
from millstream_worker.inference.picking import fits_alone
from millstream_worker.inference.profile import Profile
from millstream_worker.inference.residency import Resident
from millstream_worker.inference.shapes import Shape, padded

#: An item under which the model failed so often has the slots to itself.
_ALONE = 2


@dataclass(slots=True, kw_only=True)
class Slots:
    """Those of one model."""

    profile: Profile
    #: Those that have one, by number.
    items: dict[int, Item] = field(default_factory=dict)
    #: The loaded model that they are slots of.
    resident: Resident | None = None
    #: Bytes that their keys and values take, as it was last heard.
    held: int = 0
    #: Tokens of the longest of them, the same.
    longest: int = 0
    #: Bytes that they may come to take beyond that: nobody else may have them.
    claimed: int = 0

    def shape(self, more: Iterable[Item] = ()) -> Shape:
        """Return the shape of all items once they have their whole length."""
        lengths = [item.length for item in (*self.items.values(), *more)]
        return Shape(len(lengths), padded(max(lengths), self.profile.batching.step))

    def claim(self) -> None:
        """Take into account what the items may come to need."""
        predicted = self.profile.footprint.predict(self.shape()) if self.items else 0
        self.claimed = max(0, predicted - self.held)

    def shed(self, room: int) -> list[Item]:
        """Return who has to go so that the next token of the others fits into ``room`` bytes.

        They have no slot any more; the most urgent keeps his. What the others will need in the
        end is no reason yet: many are through before that.
        """
        gone: list[Item] = []
        longest = padded(self.longest + 1, self.profile.batching.step)
        while len(self.items) > 1:
            if self.profile.footprint.predict(Shape(len(self.items), longest)) <= room:
                break
            gone.append(max(self.items.values(), key=lambda item: item.rank))
            del self.items[gone[-1].number]
        return gone

    def joining(self, waiting: Iterable[Item], room: int) -> list[Item]:
        """Return who may join, the most urgent first. Nobody overtakes one that does not fit.

        What never had the room would starve otherwise.
        """
        chosen: list[Item] = []
        if any(item.doubts >= _ALONE for item in self.items.values()):
            return chosen
        for item in waiting:
            if item.refused_at >= room:
                continue
            if not self._fits([*chosen, item], room):
                break
            if item.doubts:
                if not chosen and (item.doubts < _ALONE or not self.items):
                    chosen.append(item)
                break
            chosen.append(item)
        return chosen

    def _fits(self, joining: list[Item], room: int) -> bool:
        batching = self.profile.batching
        shape = self.shape(joining)
        if shape.items > batching.items:
            return False
        if shape.items == 1:
            # Alone the law itself decides: what is never tried is never trusted again.
            return fits_alone(self.profile, joining[0], room)
        fitting = self.profile.footprint.most_items(shape.longest, room)
        return shape.tokens <= batching.tokens and shape.items <= fitting
