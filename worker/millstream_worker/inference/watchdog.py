"""Ends the process of a device that hangs: it shows no life, or computes far longer than it should.

Two signs, since each sees what the other cannot: a counter that the child's own thread moves says
that it still runs at all, and a limit of time says that what it runs has an end. A model that
loads is waited for long, and its counter may stand: libraries hold the interpreter while they come.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: A batch may take so many times what the law says, beyond the patience itself.
_LATE = 10.0
#: The patience with batches whose law nobody knows yet.
_UNKNOWN = 10.0
_MOST_LOOK_S = 1.0
#: Who looked last so long ago was stopped himself, and the answer may lie there unread.
_ASLEEP_S = 5.0


def patience_s(hang_s: float, predicted_s: float, *, learned: bool) -> float:
    """Return how long a batch may take before its device counts as hung."""
    return hang_s * (1.0 if learned else _UNKNOWN) + _LATE * predicted_s


@dataclass(slots=True, kw_only=True)
class Vigil:
    """One question that is waited for."""

    asked: float
    #: Seconds until it must be answered, and until a sign of life must be seen; None: no matter.
    within_s: float | None
    silence_s: float | None
    _beat: int = -1
    _heard: float = 0.0
    _looked: float | None = None

    def look(self, now: float, beat: int) -> str:
        """Return why it is waited for no longer; empty as long as it is."""
        if self._looked is not None and now - self._looked > _ASLEEP_S:
            self.asked += now - self._looked
            self._heard += now - self._looked
        self._looked = now
        if beat != self._beat:
            # What is seen first may be old: silence counts from the question at the earliest.
            self._beat, self._heard = beat, now if self._beat >= 0 else self.asked
        if self.silence_s is not None and now - self._heard > self.silence_s:
            return f"it gave no sign of life for {self.silence_s:g} s"
        if self.within_s is not None and now - self.asked > self.within_s:
            return f"it did not answer within {self.within_s:.3g} s"
        return ""


class Watchdog:
    """A thread that watches one process. ``end`` kills it; ``beat`` is its counter."""

    def __init__(
        self,
        end: Callable[[], None],
        beat: Callable[[], int],
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._end = end
        self._beat = beat
        self._silence_s = silence_s
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._vigil: Vigil | None = None
        #: Why the process was ended; empty where it was not.
        self.verdict = ""
        threading.Thread(target=self._watch, name="watchdog of a device", daemon=True).start()

    @contextmanager
    def over(self, within_s: float | None, *, silent: bool = False) -> Iterator[None]:
        """Watch while a question is open. ``silent``: no sign of life is asked for meanwhile."""
        vigil = Vigil(
            asked=self._clock(), within_s=within_s, silence_s=None if silent else self._silence_s
        )
        with self._lock:
            self._vigil = vigil
        try:
            yield
        finally:
            with self._lock:
                self._vigil = None

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()

    def _watch(self) -> None:
        # Nobody wakes it: a question costs no switch of threads, and a hang is a matter of seconds.
        while not self._closed.wait(min(_MOST_LOOK_S, self._silence_s / 4)):
            with self._lock:
                vigil = self._vigil
                if vigil is None:
                    continue
                self.verdict = vigil.look(self._clock(), self._beat())
                if self.verdict:
                    self._vigil = None
                    self._end()
