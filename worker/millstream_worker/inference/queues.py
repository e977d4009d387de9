"""What waits for one model, the most urgent first. Devices take from it when they are free.

Promise: what nobody wants any more, or came too late, is never handed out.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from itertools import islice
from operator import attrgetter

from millstream.errors import DeadlineExceeded, InferenceUnavailable
from millstream_worker.inference.grouping import WINDOW
from millstream_worker.inference.items import Item

#: What found too little memory beside neighbours waits so long for more.
STARVE_S = 60.0
_rank, _variant = attrgetter("rank"), attrgetter("variant")


class ModelQueue:
    """The waiting items of a model."""

    def __init__(self, model: str) -> None:
        self.model = model
        #: Counts every arrival: who remembers the number knows whether somebody came since.
        self.arrivals = 0
        #: Devices that serve it and have nothing to do: nobody prepares ahead while there are any.
        self.idle: set[str] = set()
        #: Called when a device has become idle.
        self.on_idle: list[Callable[[], None]] = []
        #: Called when somebody lost interest in items, which may have left already.
        self.on_gave_up: list[Callable[[], None]] = []
        self._waiting: list[Item] = []
        #: When the first of those that wait is too late, at the earliest.
        self._too_late = math.inf
        #: Some of those that wait are not wanted any more.
        self._given_up = False
        #: Those that found too little memory beside neighbours.
        self._starving: list[Item] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, items: Iterable[Item]) -> None:
        """Let items wait."""
        for item in items:
            self._put(item)
            self.arrivals += 1

    def rest(self, device: str) -> None:
        """A device has nothing to do: what another one has prepared ahead is better off here."""
        if device not in self.idle:
            self.idle.add(device)
            for notify in self.on_idle:
                notify()

    def put_back(self, items: Iterable[Item]) -> None:
        """Let items wait again, at the place they had."""
        for item in items:
            self._put(item)

    def starve(self, items: Iterable[Item], now: float) -> None:
        """Let items wait again until there is more memory than they found."""
        for item in items:
            item.starving_since = item.starving_since or now
            self._starving.append(item)
            self._put(item)

    def gave_up(self) -> None:
        """Somebody lost interest in items which may wait here, or be ahead at a device."""
        self._given_up = True
        for notify in self.on_gave_up:
            notify()

    def clean(self, now: float) -> None:
        """Drop what nobody wants, and fail what is too late."""
        if self._starving:
            self._feed(now)
        if not self._given_up and now < self._too_late:
            return
        for item in self._waiting:
            if item.deadline <= now:
                item.fail(expired(self.model, now - item.queued))
        self._waiting = [item for item in self._waiting if not item.dropped]
        self._too_late = min((item.deadline for item in self._waiting), default=math.inf)
        self._given_up = False

    def fail(self, error: Exception) -> None:
        """Fail all that waits."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            item.fail(error)

    @property
    def head(self) -> Item | None:
        """The most urgent item."""
        return self._waiting[0] if self._waiting else None

    def oldest(self) -> float | None:
        """Return since when the oldest item has waited."""
        return min((item.queued for item in self._waiting), default=None)

    def first(self, count: int) -> list[Item]:
        """Return the most urgent items, whatever their options."""
        return self._waiting[:count]

    def window(self) -> list[Item]:
        """Return the most urgent items that may leave with the first of them."""
        if not self._waiting:
            return []
        variant = self._waiting[0].variant
        if len(self._waiting) <= WINDOW and len(set(map(id, map(_variant, self._waiting)))) == 1:
            return list(self._waiting)
        return list(islice((x for x in self._waiting if x.variant == variant), WINDOW))

    def take(self, items: Iterable[Item]) -> None:
        """Remove items: they leave."""
        taken = {item.number for item in items}
        self._waiting = [item for item in self._waiting if item.number not in taken]

    def _feed(self, now: float) -> None:
        """Fail what has found no room for too long: others may have it, or it later."""
        still, waiting = [], {item.number for item in self._waiting}
        for item in self._starving:
            if item.dropped or item.number not in waiting:
                continue
            if now - item.starving_since < STARVE_S:
                still.append(item)
                continue
            item.fail(no_room(self.model, now - item.starving_since))
            self._given_up = True
        self._starving = still

    def _put(self, item: Item) -> None:
        bisect.insort(self._waiting, item, key=_rank)
        self._too_late = min(self._too_late, item.deadline)


def no_room(model: str, waited_s: float) -> InferenceUnavailable:
    """Return the error of an item that neighbours left no memory for."""
    return InferenceUnavailable(
        f"an input of model {model!r} found no room beside what neighbours hold of the device for"
        f" {waited_s:.3g} s",
        cause="NoRoom",
    )


def expired(model: str, waited_s: float) -> DeadlineExceeded:
    """Return the error of an item that came too late."""
    return DeadlineExceeded(
        f"an input of model {model!r} waited {waited_s:.3g} s and its time was up; it was not"
        " computed",
        cause="DeadlineExceeded",
    )
