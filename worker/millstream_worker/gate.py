"""The slots of the process as one lane sees them: none, while its queue is paused.

Room is asked for before anything is taken, so a lane without room takes nothing new, and what it
holds goes on. A gate is shut until the first look at the lane says that it may be open: a worker
that starts on a paused queue must not take anything either.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream_worker.slots import Slots


class Gate:
    """One lane's way to the slots."""

    def __init__(self, slots: Slots, *, shut: bool = True) -> None:
        self.shut = shut
        #: Whether what is on trial is taken: it is known to this process, or nothing is any more.
        self.canary = False
        self.total = slots.total
        self.on_free = slots.on_free
        self.on_cleared = slots.on_cleared
        # Nothing about these depends on the gate, and a busy worker calls them for every run.
        self.give = slots.give
        self.suspect = slots.suspect
        self.clear = slots.clear
        self.suspects = slots.suspects
        self._slots = slots
        self._notify: Callable[[], None] = lambda: None

    def told(self, *, paused: bool) -> None:
        """Hear whether the queue is paused."""
        if paused == self.shut:
            return
        self.shut = paused
        if not paused:
            # Whoever waits for room, or for work, looks again.
            for notify in (self._notify, *self.on_free):
                notify()

    def tries(self, *, canary: bool) -> None:
        """Hear whether this process takes what is on trial."""
        if canary != self.canary:
            self.canary = canary
            # What waits there already is found by a commit: the blocking read does not see it yet.
            for notify in self.on_cleared:
                notify()

    @property
    def free(self) -> int:
        """How many slots this lane may take."""
        return 0 if self.shut else self._slots.free

    def take(self, wanted: int) -> int:
        """Take up to ``wanted`` slots; return how many."""
        return 0 if self.shut else self._slots.take(wanted)

    def kept(self, leaving: int, staying: int) -> int:
        """Return how many slots of runs that leave may be filled again. See `Slots.kept`."""
        return 0 if self.shut else self._slots.kept(leaving, staying)

    def share(self, notify: Callable[[], None], hungry: Callable[[], bool]) -> Callable[[], None]:
        """Have the lane told of free slots. See `Slots.share`."""
        self._notify = notify
        return self._slots.share(notify, lambda: not self.shut and hungry())

    @property
    def hungry(self) -> int:
        """How many lanes have work for a slot."""
        return self._slots.hungry

    @property
    def suspecting(self) -> bool:
        """Whether a run is held that may kill this worker."""
        return bool(self.suspects)
