"""How tenants share the levels of a lane, in plain Python: turns, and who may join a stream.

Written from the header of the fragment, not from its body. It knows ids and tenants, not runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Stands for the tenant of a stream where there are several.
SEVERAL = "several"


@dataclass(slots=True)
class Turns:
    """One level: who waits beside its stream, and whose turn has passed."""

    #: Whose runs wait in the stream.
    sole: str = ""
    backlog: list[tuple[int, str]] = field(default_factory=list)
    #: The last turn that has passed, of the backlog and of the stream.
    passed: int = 0
    main: int = 0
    given: dict[str, int] = field(default_factory=dict)

    def admits(self, tenant: str, waiting: int, window: int) -> bool:
        """Whether a run goes into the stream, where so many wait."""
        if self.sole == tenant:
            return True
        if self.backlog or waiting >= window:
            return False
        self.sole = SEVERAL if waiting else tenant
        return True

    def wait(self, run_id: str, tenant: str) -> None:
        """Give a run its turn."""
        turn = max(self.passed, self.given.get(tenant, 0)) + 1
        self.given[tenant] = turn
        self.backlog.append((turn, run_id))
        self.backlog.sort()

    def leave(self, run_id: str) -> None:
        """A run has ended before its turn came."""
        self.backlog = [each for each in self.backlog if each[1] != run_id]

    def next(self, count: int) -> list[str]:
        """Return whose turns are next."""
        due, self.backlog = self.backlog[:count], self.backlog[count:]
        if due:
            self.passed = due[-1][0]
        return [run_id for _, run_id in due]

    def share(self, count: int) -> int:
        """Return how many of the next runs are the stream's."""
        if self.sole == SEVERAL or not self.backlog:
            return count
        at, others = max(self.main, self.passed), 0
        for _ in range(count):
            if others < len(self.backlog) and self.backlog[others][0] <= at + 1:
                others += 1
            else:
                at += 1
        self.main = at
        return count - others

    def forget(self) -> None:
        """Nobody waits for a turn any more, at any level."""
        self.passed = self.main = 0
        self.given.clear()
