"""How many runs this process may hold at once: asked for before work is taken, never after."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Slots:
    """A count of free slots, shared by all lanes of the process."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        #: What is on trial is taken lane by lane, see `Gate`.
        self.canary = False
        #: Called when slots became free, beside the lanes.
        self.on_free: list[Callable[[], None]] = []
        self._lanes: deque[Callable[[], None]] = deque()
        self._hungry: list[Callable[[], bool]] = []
        #: Called when the last suspect is cleared, so that lanes can look for the next one.
        self.on_cleared: list[Callable[[], None]] = []
        #: Runs that are held and may kill this worker.
        self.suspects: set[object] = set()

    def take(self, wanted: int) -> int:
        """Take up to ``wanted`` slots; return how many."""
        granted = max(0, min(wanted, self.free))
        self.free -= granted
        return granted

    def share(self, notify: Callable[[], None], hungry: Callable[[], bool]) -> Callable[[], None]:
        """Have a lane told of free slots, so that it can ask again while it has work.

        ``hungry`` says whether it has. Call what is returned when the lane is served no more.
        """
        self._lanes.append(notify)
        self._hungry.append(hungry)

        def leave() -> None:
            self._lanes.remove(notify)
            self._hungry.remove(hungry)

        return leave

    @property
    def hungry(self) -> int:
        """How many lanes have work for a slot."""
        return sum(each() for each in self._hungry)

    def kept(self, leaving: int, staying: int) -> int:
        """Return how many of the slots that a lane's runs leave it may fill again itself.

        ``staying`` of its runs do not leave. A lane alone keeps all; while others have work too,
        it keeps no more than its part, and the rest goes to whoever hears of it first.
        """
        hungry = self.hungry
        if hungry < 2:
            return leaving
        return min(leaving, max(0, self.total // hungry - staying))

    def give(self, count: int) -> None:
        """Return slots; a negative count takes back what was returned a moment ago.

        Who hears of it first gets them: each lane in turn, or the last one would starve.
        """
        self.free += count
        if count > 0:
            self._lanes.rotate(-1)
            for notify in (*self._lanes, *self.on_free):
                notify()

    @property
    def suspecting(self) -> bool:
        """Whether a run is held that may kill this worker: then no other such run beside it."""
        return bool(self.suspects)

    def suspect(self, held: object) -> None:
        """Hold a run that may kill this worker."""
        self.suspects.add(held)

    def clear(self, held: object) -> None:
        """The run has left, or is past the place where its workers died."""
        if held in self.suspects:
            self.suspects.discard(held)
            if not self.suspects:
                for notify in self.on_cleared:
                    notify()


class Shares:
    """How the levels of a queue share what is taken: by weight over time, so none ever starves."""

    WEIGHTS = (("high", 6), ("normal", 3), ("low", 1))

    def __init__(self) -> None:
        self._credit = {level: 0.0 for level, _ in self.WEIGHTS}

    def split(self, count: int) -> dict[str, int]:
        """Return how many of ``count`` each level gets; what is lost in rounding is remembered."""
        total = sum(weight for _, weight in self.WEIGHTS)
        parts = {}
        for level, weight in self.WEIGHTS:
            self._credit[level] += count * weight / total
            parts[level] = max(0, int(self._credit[level]))

        # Rounding leaves a few over, or gives a few too many: the largest credit decides.
        while (missing := count - sum(parts.values())) != 0:
            step = 1 if missing > 0 else -1
            level = max(parts, key=lambda name: step * (self._credit[name] - parts[name]))
            parts[level] += step

        for level, part in parts.items():
            self._credit[level] -= part
        return parts
