"""What a device knows of a model: how it is batched, what batches cost, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from millstream_worker.inference.costs import CostLaw
from millstream_worker.inference.footprint import Footprint
from millstream_worker.inference.grouping import Caps
from millstream_worker.inference.patience import Patience
from millstream_worker.inference.shapes import Shape, shape_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How the items of a model may be batched."""

    items: int = 32
    #: Tokens of one batch, padding included.
    tokens: int = 65_536
    max_wait_s: float = 0.005
    step: int = 8
    padding: bool = True
    #: Whether items join and leave while others are computed.
    continuous: bool = False


@dataclass(slots=True, kw_only=True)
class Profile:
    """One model on one device."""

    model: str
    batching: Batching
    #: Under which what was learned of it is kept; empty: it is not.
    identity: str = ""
    footprint: Footprint
    patience: Patience
    costs: CostLaw = field(default_factory=CostLaw)
    #: Bytes of the latest batch whose peak was measured.
    last_predicted: int = 0
    last_observed: int = 0

    def caps(self, room: float) -> Caps:
        """Return what a batch may be when ``room`` bytes are left."""
        return Caps(
            items=self.batching.items,
            tokens=self.batching.tokens,
            fitting=lambda longest: self.footprint.most_items(longest, room),
            step=self.batching.step,
            padding=self.batching.padding,
        )

    def shape(self, lengths: list[int]) -> Shape:
        """Return the shape of a batch of items of these lengths."""
        if self.batching.padding:
            return shape_of(lengths, self.batching.step)
        # Nothing is padded: only the sum of the lengths counts.
        return Shape(len(lengths), max(1, -(-sum(lengths) // len(lengths))))
