"""When may a run be put aside? When every branch of it waits for something that Redis can wake.

Counts branches, and those of them that wait. Knows nothing of what they wait for but the time, and
the name of the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple


class Wait(NamedTuple):
    """What one branch waits for: a time (epoch seconds), a message of a name, or either."""

    due: float | None
    name: str | None = None


class Parking:
    """Branches of one run, running and waiting."""

    def __init__(
        self,
        park: Callable[[float | None, tuple[str, ...]], None],
        patience_s: float,
        wall: Callable[[], float],
    ) -> None:
        #: Told when the run goes on at the latest, and what for.
        self._park = park
        #: A wait for a time that is shorter than this is not worth putting the run aside.
        self._patience_s = patience_s
        self._wall = wall
        self._branches = 1
        #: By a number of their own: branches may wait for the same.
        self._waits: dict[object, Wait] = {}
        #: A block in which something is done to the world.
        self.acting = _Acting(self._waits, self._consider)

    @contextmanager
    def split(self, count: int) -> Iterator[Callable[[], None]]:
        """The running branch becomes ``count`` branches; each calls what is yielded at its end."""
        left, before = count, self._branches
        self._branches += count - 1

        def ended() -> None:
            nonlocal left
            left -= 1
            # The last to end hands its place to the branch that waits for them all.
            if left:
                self._branches -= 1
                self._consider()

        try:
            yield ended
        finally:
            # Branches that were cancelled have not said that they ended.
            self._branches = before

    @contextmanager
    def waiting(self, due: float | None, name: str | None = None) -> Iterator[None]:
        """The running branch waits; the run may be parked meanwhile."""
        mark = object()
        self._waits[mark] = Wait(due, name)
        try:
            self._consider()
            yield
        finally:
            del self._waits[mark]

    def _consider(self) -> None:
        if not self._waits or self.acting.count or len(self._waits) != self._branches:
            return
        due = min((each.due for each in self._waits.values() if each.due is not None), default=None)
        if due is None or due - self._wall() > self._patience_s:
            names = {each.name for each in self._waits.values() if each.name is not None}
            self._park(due, tuple(sorted(names)))

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Inside an act, wait for something: nothing is done to the world meanwhile."""
        self.acting.count -= 1
        if self._waits:
            self._consider()
        try:
            yield
        finally:
            self.acting.count += 1


class _Acting:
    """The blocks in which something is done to the world; any number may be open.

    Parking now would cut it, and repeat it later. Branches count themselves; this is for the tasks
    that a workflow started on its own.
    """

    __slots__ = ("_consider", "_waits", "count")

    def __init__(self, waits: Mapping[object, Wait], consider: Callable[[], None]) -> None:
        self._waits = waits
        self._consider = consider
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *exc_info: object) -> None:
        self.count -= 1
        if self._waits:
            self._consider()
