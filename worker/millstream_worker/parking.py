"""When may a run be put aside? When every branch of it waits for something that Redis can wake.

Counts branches, and those of them that wait. Knows nothing of what they wait for but the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Parking:
    """Branches of one run, running and waiting."""

    def __init__(
        self, park: Callable[[float], None], patience_s: float, wall: Callable[[], float]
    ) -> None:
        self._park = park
        #: A wait shorter than this is not worth putting the run aside.
        self._patience_s = patience_s
        self._wall = wall
        self._branches = 1
        self._acts = 0
        self._due: list[float] = []
        #: A block in which something is done to the world.
        self.acting = _Acting(self)

    def worth_it(self, due: float) -> bool:
        """Whether a wait until ``due`` (epoch seconds) is long enough to park for."""
        return due - self._wall() > self._patience_s

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
    def waiting(self, due: float) -> Iterator[None]:
        """The running branch waits until ``due``; the run may be parked meanwhile."""
        self._due.append(due)
        try:
            self._consider()
            yield
        finally:
            self._due.remove(due)

    def _consider(self) -> None:
        if self._due and not self._acts and len(self._due) == self._branches:
            first = min(self._due)
            if self.worth_it(first):
                self._park(first)

    def begin_act(self) -> None:
        """Something is being done to the world: parking now would cut it, and repeat it later.

        Branches count themselves; this is for the tasks that a workflow started on its own.
        """
        self._acts += 1

    def end_act(self) -> None:
        """It is done."""
        self._acts -= 1
        self._consider()


class _Acting:
    """The block between `begin_act` and `end_act`; any number may be open."""

    __slots__ = ("_parking",)

    def __init__(self, parking: Parking) -> None:
        self._parking = parking

    def __enter__(self) -> None:
        self._parking.begin_act()

    def __exit__(self, *exc_info: object) -> None:
        self._parking.end_act()
