"""Picks what a device computes next: which model, which of its items, and whether now.

Promise: the group of the most urgent item leaves first, and nothing is picked that is predicted
not to fit. It starts nothing and changes no queue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from millstream_worker.inference import grouping
from millstream_worker.inference.budget import Budget
from millstream_worker.inference.grouping import Caps
from millstream_worker.inference.handing import Handed
from millstream_worker.inference.items import Item, too_large
from millstream_worker.inference.patience import Reason, Waiting
from millstream_worker.inference.profile import Profile
from millstream_worker.inference.queues import ModelQueue
from millstream_worker.inference.recovery import Hunt
from millstream_worker.inference.shapes import Shape, padded

#: A model that is not loaded is waited for this long by those that are, times its loading time.
_TURN = 2.0
_LEAST_TURN_S = 1.0


_NO_SHAPE = Shape(0, 0)
_length = attrgetter("length")


@dataclass(slots=True, eq=False, kw_only=True)
class Batch:
    """Items that leave together."""

    model: str
    items: list[Item]
    #: Its name, in events: given when it is launched.
    name: str = ""
    #: Why it leaves; while it is only picked, whether that is because it is full.
    reason: Reason | None = None
    #: How many had arrived in the queue when it was picked.
    arrivals: int = 0
    #: The search it belongs to, where an earlier batch failed.
    hunt: Hunt | None = None
    #: What was predicted, and as what it began.
    predicted: int = 0
    shape: Shape = _NO_SHAPE
    #: What neighbours held when it was admitted.
    others: int = 0
    #: When it began, by the clock on the wall.
    began: float = 0.0
    #: What the device was given of it before it was free, if anything, and whether we have it back.
    handed: Handed | None = None
    taken_back: bool = False

    def launched(self, name: str, profile: Profile, others: int, now: float) -> None:
        """It is given to the device, beside neighbours that hold so many bytes."""
        for item in self.items:
            item.launched = now
        self.name, self.others = name, others
        self.shape = profile.shape([x.length for x in self.items])
        # Alone the law itself decides, as it did when the item was picked.
        self.predicted = profile.footprint.predict(self.shape, trusting=len(self.items) == 1)

    @property
    def live(self) -> list[Item]:
        """Those that somebody still wants."""
        return [item for item in self.items if not item.dropped]


def _fitting(window: list[Item], caps: Caps, room: int) -> list[Item]:
    """Return the items that fit into ``room`` bytes alone: most often all of them."""
    longest = max(map(_length, window), default=0)
    found = [x for x in window if x.refused_at < room]
    if caps.fitting(padded(longest, caps.step)) >= 1:
        return found
    return [x for x in found if caps.fitting(padded(x.length, caps.step)) >= 1]


def fits_alone(profile: Profile, item: Item, room: int) -> bool:
    """Whether an item fits by the law itself, whatever distrust says of it."""
    shape = profile.shape([item.length])
    return item.refused_at < room and profile.footprint.predict(shape, trusting=True) <= room


@dataclass(slots=True, kw_only=True)
class Picker:
    """Chooses for one device."""

    queues: Mapping[str, ModelQueue]
    profiles: Mapping[str, Profile]
    #: Whether a run of this process could still add an item.
    could_grow: Callable[[], bool]
    #: Arrivals of a model when the device began to wait for more of them.
    _began: dict[str, int] = field(default_factory=dict)

    def order(self, now: float, resident: Mapping[str, float]) -> Iterable[str]:
        """Return the models that have work, in the order in which they are served.

        ``resident`` are those that are loaded, with how long loading takes. Another one comes
        before them only when its head has waited for its turn.
        """
        waiting = []
        for model, queue in self.queues.items():
            queue.clean(now)
            head = queue.head
            if head is None or model not in self.profiles:
                continue
            turn = 0.0
            if model not in resident and resident:
                turn = max(_LEAST_TURN_S, _TURN * max(resident.values()))
            waiting.append((head.rank[0] + turn, head.number, model))
        return [model for _, _, model in sorted(waiting)]

    def has_plenty(self, model: str) -> bool:
        """Whether so much waits that the next batch can be prepared while one runs."""
        return len(self.queues[model]) >= max(1, self.profiles[model].batching.items // 2)

    def pick(self, model: str, room: int) -> Batch | None:
        """Return the batch that would leave now; None when nothing fits into ``room`` bytes."""
        queue, profile = self.queues[model], self.profiles[model]
        caps = profile.caps(room)
        window = queue.window()
        fitting = _fitting(window, caps, room)
        if not fitting:
            return self._alone(profile, window, queue.arrivals, room)
        chosen = grouping.choose([x.length for x in fitting], 0, profile.costs.law, caps)
        items = [fitting[i] for i in chosen]
        return Batch(
            model=model,
            items=items,
            reason=self._fullness(profile, items, len(fitting), room),
            arrivals=queue.arrivals,
        )

    def _alone(
        self, profile: Profile, window: list[Item], arrivals: int, room: int
    ) -> Batch | None:
        """Return one item that fits by the law itself, where only distrust says that none does.

        What is never tried is never trusted again.
        """
        for item in window:
            if fits_alone(profile, item, room):
                return Batch(
                    model=profile.model, items=[item], reason=Reason.BYTES, arrivals=arrivals
                )
        return None

    def refuse_impossible(self, model: str, budget: Budget, held: int) -> None:
        """Fail the items that would not fit if the device were all ours."""
        footprint = self.profiles[model].footprint
        most = budget.largest(held)
        for item in self.queues[model].window():
            shape = self.profiles[model].shape([item.length])
            if budget.reading.usable and footprint.predict(shape, trusting=True) > most:
                item.fail(too_large(model, item.length, f"it needs more than {most:,} bytes"))
                self.queues[model].gave_up()

    def when(self, batch: Batch, now: float, free_since: float) -> Reason | float:
        """Return why a batch leaves now, or until when it is waited for more."""
        if batch.reason is not None:
            return batch.reason
        profile = self.profiles[batch.model]
        fixed = profile.costs.law.overhead
        took = profile.costs.seconds(profile.shape([x.length for x in batch.items]))
        oldest = min(item.queued for item in batch.items)
        waiting = Waiting(
            full=False,
            bytes_full=False,
            could_grow=self.could_grow(),
            since=max(oldest, free_since),
            launch_by=min((x.deadline for x in batch.items), default=math.inf) - took,
        )
        self._began.setdefault(batch.model, batch.arrivals)
        return profile.patience.decide(now, waiting, fixed)

    def left(self, batch: Batch, reason: Reason) -> None:
        """Learn from a batch that left whether it paid to wait for it."""
        began = self._began.pop(batch.model, batch.arrivals)
        self.profiles[batch.model].patience.left(reason, joined=batch.arrivals - began)

    def _fullness(
        self, profile: Profile, items: list[Item], there: int, room: int
    ) -> Reason | None:
        caps = profile.caps(room)
        longest = padded(max(item.length for item in items), caps.step)
        if len(items) >= caps.fitting(longest):
            return Reason.BYTES
        if there >= caps.items or len(items) >= caps.most(longest):
            return Reason.FULL
        return None
