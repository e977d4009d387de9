"""What steps did to the world, counted where no crash of a worker can lose it.

A file opened for appending: one line is one write, so lines of several processes never mix, and a
line that was written stays when its writer is killed the next moment. Times are of the monotonic
clock, which all processes of a machine share.

Keyed effects are counted as a server would that knows idempotency keys: the first call under a
key counts, every other one is a repetition that it recognises.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Where the flows that a worker runs find the file.
VARIABLE = "MILLSTREAM_TEST_EFFECTS"
#: A step began to act; its effect is in the world from here on.
BEGUN = "begun"
#: A step has acted to its end.
DONE = "done"
#: A server was called under an idempotency key.
KEYED = "keyed"


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the file."""

    at: float
    pid: int
    word: str
    run: str
    step: int
    key: str = ""


class Effects:
    """The file, as those who write it and those who count it see it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._read = 0
        self._seen: list[Effect] = []

    @classmethod
    def of_environment(cls) -> Effects:
        """Open the file that the environment names."""
        return cls(Path(os.environ[VARIABLE]))

    def write(self, word: str, run: str, step: int, key: str = "") -> None:
        """Append one effect."""
        line = f"{time.monotonic():.6f}\t{os.getpid()}\t{word}\t{run}\t{step}\t{key}\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def all(self, word: str | None = None, run: str | None = None) -> list[Effect]:
        """Return what happened so far, in the order of time."""
        self._seen += self._news()
        return sorted(
            (
                x
                for x in self._seen
                if (word is None or x.word == word) and (run is None or x.run == run)
            ),
            key=lambda effect: effect.at,
        )

    def repeated(self, word: str = BEGUN) -> int:
        """Return how many effects happened more than they should, over all steps."""
        counts = Counter((x.run, x.step) for x in self.all(word))
        return sum(count - 1 for count in counts.values())

    def repeated_keys(self) -> int:
        """Return how many steps reached the server under more than one key."""
        keys: dict[tuple[str, int], set[str]] = {}
        for effect in self.all(KEYED):
            keys.setdefault((effect.run, effect.step), set()).add(effect.key)
        return sum(len(found) - 1 for found in keys.values())

    def after_their_record(self) -> list[Effect]:
        """Return the effects of steps whose record already stood.

        For runs whose steps follow one another: when a later step of the run has begun, wherever
        that was, the earlier one's record stood.
        """
        furthest: dict[str, int] = {}
        late = []
        for effect in self.all(BEGUN):
            if effect.step < furthest.get(effect.run, -1):
                late.append(effect)
            furthest[effect.run] = max(effect.step, furthest.get(effect.run, -1))
        return late

    def in_flight(self, pid: int, ended: Container[str]) -> int:
        """Return how many steps a process has begun whose record may not stand yet."""
        newest = {effect.run: effect.pid for effect in self.all(BEGUN)}
        return sum(owner == pid and run not in ended for run, owner in newest.items())

    def _news(self) -> Iterator[Effect]:
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._read += len(line)
            at, pid, word, run, step, key = line.decode().rstrip("\n").split("\t")
            yield Effect(float(at), int(pid), word, run, int(step), key)
