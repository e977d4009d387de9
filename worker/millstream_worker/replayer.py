"""Which step is this, and has it been done? Keys, fingerprints, and the journal of one run.

A key is a path: the branches that lead to the step, its name, and how often that name came before
in the same branch. Two branches that run at the same time never share a counter, so the order in
which they happen to run changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from millstream.errors import DuplicateKey, NonDeterminism, UsageError
from millstream.model.journal import Record, StepKind

#: What the keys of such marks begin with. No step's key does: those have no blank and no count.
_PATCH = "patch of "


@dataclass(slots=True)
class Branch:
    """One line of calls of a workflow: the main one, or one awaitable of a ``gather``."""

    path: str = ""
    _counts: dict[str, int] = field(default_factory=dict)
    _keys: set[str] = field(default_factory=set)

    def key(self, name: str, explicit: str | None) -> str:
        """Take the next key for a name, or the key that was asked for."""
        if not (name + (explicit or "")).isprintable():
            raise UsageError(
                f"step key {name!r}:{explicit!r} has characters that cannot be printed"
            )
        if explicit is not None:
            key = f"{self.path}{name}:{explicit}"
            if key in self._keys:
                raise DuplicateKey(key)
            self._keys.add(key)
            return key

        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return f"{self.path}{name}#{count}"

    def children(self, count: int) -> list[Branch]:
        """Return a branch for each awaitable of the next ``gather``."""
        group = self.key("gather", None)
        return [Branch(f"{group}.{index}/") for index in range(count)]


class Replay:
    """The journal of a run, and how far a replay has come in it."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(records)
        # Marks of changed code are no steps: the code may forget about them.
        self._unvisited: set[str] = set()
        if records:
            self._unvisited |= {key for key in records if not key.startswith(_PATCH)}
        self._patches: dict[str, bool] = {}
        #: Made when first needed: many a run has one line of calls, or none.
        self._current: ContextVar[Branch] | None = None
        self._main: Branch | None = None

    @property
    def branch(self) -> Branch:
        """The branch that is running."""
        main = self._main
        if main is None:
            main = self._main = Branch()
        return main if self._current is None else self._current.get(main)

    @contextmanager
    def inside(self, branch: Branch) -> Iterator[None]:
        """Run what follows as this branch."""
        if self._current is None:
            self._current = ContextVar("branch")
        token = self._current.set(branch)
        try:
            yield
        finally:
            self._current.reset(token)

    @property
    def replaying(self) -> bool:
        """Whether there are records that have not been visited: the run has been here before."""
        return bool(self._unvisited)

    def patched(self, name: str, mark: Callable[[str], None]) -> bool:
        """Return whether a change of the code holds for this run; ``mark`` records that it does.

        It holds where the run was not beyond this point when the code was changed: it has a mark,
        or nothing is left of its journal. The first answer holds for the whole attempt.
        """
        answer = self._patches.get(name)
        if answer is None:
            key = f"{_PATCH}{name}"
            known = key in self._records
            answer = self._patches[name] = known or not self.replaying
            if answer and not known:
                mark(key)
        return answer

    def visit(self, key: str, kind: StepKind, target: str, digest: str) -> Record | None:
        """Return what the journal has under a key; None when the step is new.

        Raises `NonDeterminism` when the key stands for another step.
        """
        record = self._records.get(key)
        self._unvisited.discard(key)
        if record is None:
            return None

        if (record.kind, record.target, record.digest) != (kind, target, digest):
            raise NonDeterminism(key, record.fingerprint, f"calls {kind} {target}({digest})")

        return record

    def check_complete(self) -> None:
        """Raise `NonDeterminism` when the run ends without having visited all its records."""
        if self._unvisited:
            key = min(self._unvisited)
            raise NonDeterminism(key, self._records[key].fingerprint, "ended without calling it")
