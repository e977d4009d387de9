"""What a lane should do, in plain Python: no Redis, no clock, nothing clever.

Written from the headers of the scripts, not from their bodies. Times are reduced to what they
decide: a timer is due or it is not, a lease holds or it does not, a record has expired or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from millstream.model.run import FINAL, RunState
from millstream.store.commits import Verdict
from millstream.store.keys import FRESH, LEVELS
from tests.store.lines import RANKS, Line, lines
from tests.store.turns import SEVERAL, Turns

SUSPECT_AFTER = 2
HOLDS = 9
CANCELLED = '["RunCancelled","the run was cancelled"]'


@dataclass(slots=True, eq=False)
class Entry:
    """One stream entry. ``name`` is its id in the store, learned when it is first seen there."""

    level: str
    run_id: str
    holder: str | None = None
    name: str | None = None


@dataclass(slots=True, eq=False)
class Run:
    """One run, with everything that the store remembers of it."""

    id: str
    workflow: str
    priority: str
    state: RunState
    tenant: str = ""
    fence: int = 0
    owner: str = ""
    #: None while it waits for its turn.
    entry: Entry | None = None
    #: What the record says while there is no entry: empty, once it has waited for its turn.
    unentered: str | None = None
    attempt: int = 1
    base: int = 0
    crashes: int = 0
    #: How many records stood when its last worker died.
    mark: int = 0
    refusals: int = 0
    refused: int = 0  # the fence under which it was refused last
    cancel: bool = False
    version: str = ""
    payload: str = ""
    drop: Sequence[str] = ()
    #: The number of the last message, those that wait (name -> number and payload), known ids.
    messages: int = 0
    mail: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    awaits: tuple[str, ...] = ()
    journal: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    #: When it was enqueued, as the store says; whether anything was ever written to its journal.
    enqueued: int = 0
    written: bool = False
    #: The limits that it holds permits of; the one that it waits for.
    permits: tuple[str, ...] = ()
    limit: str = ""

    @property
    def suspect(self) -> bool:
        """Whether it must wait apart."""
        return self.crashes >= SUSPECT_AFTER


@dataclass(frozen=True, slots=True)
class Op:
    """One item of a commit. Which fields count depends on ``kind``, the letter of the script."""

    kind: str
    run_id: str = ""
    fence: int = 0
    level: str = ""
    entry: str = ""
    version: str = "1"
    #: Journal: the records. Emit: one of them, and the data is its key.
    records: tuple[tuple[str, str], ...] = ()
    #: Settle: the state. Settle and retry: the stored payload, and the records to drop.
    state: RunState = RunState.COMPLETED
    payload: str = ""
    drop: tuple[str, ...] = ()
    #: Park: what is awaited, and the last message that is known of. Look: the name.
    awaits: tuple[str, ...] = ()
    heard: int = 0
    #: Ask: the limits that it is asked under.
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker is told of a run that it now holds."""

    run_id: str
    fence: int
    level: str
    attempt: int
    base: int
    crashes: int
    refusals: int
    records: int
    received: bool = False
    entry: Entry | None = field(default=None, compare=False)


@dataclass(slots=True)
class Model:
    """One lane."""

    max_records: int
    max_messages: int
    window: int = 16
    turns: dict[str, Turns] = field(default_factory=lambda: {x: Turns() for x in FRESH})
    runs: dict[str, Run] = field(default_factory=dict)
    streams: dict[str, list[Entry]] = field(default_factory=lambda: {x: [] for x in LEVELS})
    timers: dict[str, bool] = field(default_factory=dict)  # id -> is due
    parked: dict[str, bool] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)  # id -> has expired
    dead: set[str] = field(default_factory=set)
    limits: dict[str, Line] = field(default_factory=lines)
    leases: dict[str, int] = field(default_factory=dict)  # token -> HOLDS, or has run out
    control: dict[str, set[str]] = field(default_factory=dict)
    spent: list[Entry] = field(default_factory=list)
    #: Whether a commit did away with something that the blocking read had brought.
    brought: bool = False

    # -- clients

    def enqueue(
        self, run_id: str, workflow: str, priority: str, delayed: bool, tenant: str = ""
    ) -> bool | str:
        known = self.runs.get(run_id)
        if known is not None:
            return False if known.workflow == workflow else known.workflow

        run = Run(run_id, workflow, priority, RunState.SCHEDULED, tenant)
        self.runs[run_id] = run
        if delayed:
            self.timers[run_id] = False
        else:
            self._place(run)
        return True

    def cancel(self, run_id: str) -> str:
        run = self.runs.get(run_id)
        if run is None:
            return ""
        if run.state in FINAL:
            return run.state
        if run.state is RunState.RUNNING:
            run.cancel = True
            self.control.setdefault(run.owner, set()).add(run_id)
            return "cancelling"

        self._finish(run, RunState.CANCELLED, CANCELLED)
        self.turns[run.priority].leave(run_id)
        if run.limit:
            del self.limits[run.limit].waiting[run_id]
            run.limit = ""
        self.timers.pop(run_id, None)
        self.parked.pop(run_id, None)
        return "cancelled"

    def signal(self, run_id: str, name: str, payload: str, message: str) -> str:
        run = self.runs.get(run_id)
        if run is None:
            return ""
        if run.state in FINAL:
            return run.state
        if message in run.ids:
            return "known"
        if sum(map(len, run.mail.values())) >= self.max_messages:
            return "full"

        run.messages += 1
        run.ids.add(message)
        run.mail.setdefault(name, []).append((run.messages, payload))
        if run.state is RunState.PARKED and name in run.awaits:
            del self.parked[run_id]
            self._requeue(run)
        elif run.state is RunState.RUNNING:
            self.control.setdefault(run.owner, set()).add(run_id)
        return "kept"

    def revive(self, run_id: str) -> str:
        run = self.runs.get(run_id)
        if run is None:
            return ""
        if run.state not in (RunState.FAILED, RunState.CANCELLED):
            return run.state

        run.base, run.attempt = run.attempt, run.attempt + 1
        run.crashes = run.mark = run.refusals = 0
        run.cancel, run.payload = False, ""
        for key in run.drop:
            run.journal.pop(key, None)
        run.drop = ()
        self.ended.pop(run_id, None)
        self.dead.discard(run_id)
        self._place(run)
        return "queued"

    # -- workers

    def commit(
        self, token: str, ops: Sequence[Op], want: tuple[int, int, int], suspect: bool
    ) -> tuple[list[Verdict], list[Given]]:
        given: list[Given] = []
        self.brought = False
        verdicts = [self._apply(token, op, given) for op in ops]
        shared = any(each.backlog for each in self.turns.values())
        for level, limit in self._shares(want, suspect):
            if level in FRESH and shared:
                self._serve(token, level, limit, given)
            else:
                self._read(token, level, limit, given)
        if shared and (any(want) or self.brought):
            self._top_up()
        self._flush()
        return verdicts, given

    def read(self, token: str) -> list[tuple[str, str]]:
        """The blocking read: one delivery a level."""
        found = []
        for level in LEVELS:
            for entry in [x for x in self.streams[level] if x.holder is None][:1]:
                entry.holder = token
                found.append((level, entry.run_id))
        return found

    def holdings(
        self, token: str, named: Sequence[tuple[str, int]]
    ) -> tuple[set[str], set[str], set[str], list[tuple[str, str]]]:
        lost = {run_id for run_id, fence in named if not self.holds(token, run_id, fence)}
        cancelled = {x for x, _ in named if x not in lost and self.runs[x].cancel}
        addressed = {x for x, _ in named if x not in lost and self.runs[x].messages}
        ids = {run_id for run_id, _ in named}
        strays = [
            (entry.level, entry.run_id)
            for entry in self.pending()
            if entry.holder == token and entry.run_id not in ids
        ]
        return lost, cancelled, addressed, strays

    def sweep(
        self, token: str, poison: int, listed: Sequence[str]
    ) -> tuple[set[str], set[str], int, int, int]:
        """``listed``: the consumers that the sweep comes to look at."""
        told, addressed = set(), set()
        for run_id in self.control.pop(token, set()):
            run = self.runs.get(run_id)
            if run is not None and run.owner == token:
                if run.cancel:
                    told.add(run_id)
                if run.messages:
                    addressed.add(run_id)
        promoted = self._promote(self.timers, RunState.SCHEDULED)
        promoted += self._promote(self.parked, RunState.PARKED)
        reclaimed = poisoned = 0
        lapsed = sorted(name for name, score in self.leases.items() if score < HOLDS)
        buried = [name for name in lapsed[:5] if name != token]
        for name in buried:
            given_up = self._bury(name, poison)
            reclaimed += given_up[0]
            poisoned += given_up[1]
        for name in listed:
            if name not in buried:
                self.leases.setdefault(name, HOLDS)
        if any(each.backlog for each in self.turns.values()):
            self._top_up()
        for run_id in [x for x, expired in self.ended.items() if expired]:
            del self.ended[run_id]
            self.dead.discard(run_id)
        return told, addressed, promoted, reclaimed, poisoned

    # -- what can be counted

    def pending(self) -> Iterator[Entry]:
        for level in LEVELS:
            yield from (entry for entry in self.streams[level] if entry.holder is not None)

    def holds(self, token: str, run_id: str, fence: int) -> bool:
        """Whether a worker may write to a run."""
        run = self._held(token, run_id, fence)
        return run is not None and run.state is RunState.RUNNING

    def depth(self) -> tuple[int, ...]:
        """Waiting, running, scheduled, due, parked, dead, limited."""
        running = len(list(self.pending()))
        waiting = sum(map(len, self.streams.values())) - running
        waiting += sum(len(each.backlog) for each in self.turns.values())
        due = sum(self.timers.values()) + sum(self.parked.values())
        limited = sum(len(line.waiting) for line in self.limits.values())
        return waiting, running, len(self.timers), due, len(self.parked), len(self.dead), limited

    # -- one item

    def _apply(  # noqa: PLR0911 - one return for each kind
        self, token: str, op: Op, given: list[Given]
    ) -> Verdict:
        if op.kind in "AH":
            return self._delivered(token, op, given)

        run = self._held(token, op.run_id, op.fence)
        if op.kind in "JEWK":
            if run is None or run.state is not RunState.RUNNING:
                return Verdict.FENCED
            if op.kind == "W":
                return self._look(run, op)
            if op.kind == "K":
                return self._admit(run, op)
            run.version = run.version or op.version
            return self._write(run, op)

        if run is None:
            return Verdict.FENCED
        if run.state is RunState.RUNNING:
            run.version = run.version or op.version
            if run.cancel and op.kind != "D":
                self._finish(run, RunState.CANCELLED, CANCELLED)
            else:
                if op.kind != "D":
                    self._give_back(run)
                self._end(run, op)
        self._acknowledge(op.level, op.entry)
        return Verdict.WRITTEN

    def _write(self, run: Run, op: Op) -> Verdict:
        new = [key for key, _ in op.records if key not in run.journal]
        # Said already only when it was with this very record.
        said = op.kind == "E" and all(run.journal.get(key) == each for key, each in op.records)
        if not said:
            if new and len(run.journal) + len(new) > self.max_records:
                return Verdict.FULL
            run.journal.update(op.records)
            run.written = True
            if op.kind == "E":
                run.events.append(op.records[0][0])
        return Verdict.CANCEL if run.cancel else Verdict.WRITTEN

    def _look(self, run: Run, op: Op) -> Verdict:
        """Take a message; its record is ``done``, the message, ``.``; an open one is ``open``."""
        ((key, otherwise),) = op.records
        stored = run.journal.get(key)
        if stored is not None and not stored.startswith("open"):
            return Verdict.ANSWERED
        (name,) = op.awaits
        waiting = run.mail.get(name)
        if not waiting and not otherwise:
            return Verdict.CANCEL if run.cancel else Verdict.WRITTEN
        if stored is None and len(run.journal) >= self.max_records:
            return Verdict.FULL
        run.version, run.written = run.version or op.version, True
        if not waiting:
            run.journal[key] = otherwise
            return Verdict.CANCEL if run.cancel else Verdict.WRITTEN
        run.journal[key] = f"done{waiting.pop(0)[1]}."
        if not waiting:
            del run.mail[name]
        return Verdict.ANSWERED

    def _admit(self, run: Run, op: Op) -> Verdict:
        """Let a run go on under limits; or put it into the line of the first that is full."""
        if run.cancel:
            return Verdict.CANCEL
        lines = [self.limits[name] for name in op.limits]
        full = [
            name
            for name, line in zip(op.limits, lines, strict=True)
            if run.id not in line.holders and line.full
        ]
        if full:
            rank = 0 if run.written else RANKS[run.priority]
            self.limits[full[0]].waiting[run.id] = (rank, run.enqueued, run.id)
            self._give_back(run)
            run.state, run.owner, run.limit = RunState.QUEUED, "", full[0]
            run.entry, run.unentered = None, ""
            self._acknowledge(op.level, op.entry)
            return Verdict.LIMITED
        for name in [name for name in run.permits if name not in op.limits]:
            del self.limits[name].holders[run.id]
            self._grant_next(name)
        for line in lines:
            line.holders[run.id] = run.fence
        run.permits = op.limits
        return Verdict.WRITTEN

    def _give_back(self, run: Run) -> None:
        permits, run.permits = run.permits, ()
        for name in permits:
            del self.limits[name].holders[run.id]
            self._grant_next(name)

    def _grant_next(self, name: str) -> None:
        line = self.limits[name]
        for run_id in line.order[:1]:
            del line.waiting[run_id]
            run = self.runs[run_id]
            line.holders[run_id] = 0
            run.limit, run.permits = "", (name,)
            self._deliver(run, "suspect" if run.suspect else "resume")

    def _end(self, run: Run, op: Op) -> None:
        match op.kind:
            case "D":
                run.drop = op.drop
                self._finish(run, op.state, op.payload)
                if op.state is RunState.FAILED:
                    self.dead.add(run.id)
            case "R":
                run.state, run.payload = RunState.SCHEDULED, op.payload
                run.attempt += 1
                for key in op.drop:
                    run.journal.pop(key, None)
                self.timers[run.id] = False
            case "P":
                run.awaits = op.awaits
                latest = [run.mail[name][-1][0] for name in op.awaits if name in run.mail]
                if any(number > op.heard for number in latest):
                    self._requeue(run)
                else:
                    run.state = RunState.PARKED
                    self.parked[run.id] = False
            case "L":
                self._requeue(run)
            case "U":
                run.state = RunState.SCHEDULED
                run.refusals = run.refusals + 1 if run.refused == run.fence - 1 else 1
                run.refused = run.fence
                self.timers[run.id] = False

    def _delivered(self, token: str, op: Op, given: list[Given]) -> Verdict:
        entry = self._entry(op.level, op.entry)
        if entry is None or entry.holder != token:
            return Verdict.FENCED

        self.brought = True
        run = self.runs.get(entry.run_id)
        if op.kind == "A":
            self._take(token, entry, True, given)
        else:
            if run is not None and run.entry is entry:
                held = run.state is RunState.RUNNING and run.owner == token
                if held or run.state is RunState.QUEUED:
                    self._requeue(run)
            self.spent.append(entry)
        return Verdict.WRITTEN

    # -- taking

    def _shares(self, want: tuple[int, int, int], suspect: bool) -> Iterator[tuple[str, Remaining]]:
        left = Remaining(sum(want))
        if left.count == 0:
            return
        if suspect:
            yield "suspect", left.at_most(1)
        yield "resume", left.at_most(left.count)
        for level, share in zip(("high", "normal", "low"), want, strict=True):
            yield level, left.at_most(share)
        for level in ("high", "normal", "low"):
            yield level, left.at_most(left.count)

    def _read(self, token: str, level: str, limit: Remaining, given: list[Given]) -> None:
        for entry in [x for x in self.streams[level] if x.holder is None][: limit.step]:
            entry.holder = token
            limit.count -= 1
            self._take(token, entry, False, given)

    def _serve(self, token: str, level: str, limit: Remaining, given: list[Given]) -> None:
        turns, asked, before = self.turns[level], limit.step, limit.count
        limit.step = turns.share(asked)
        self._read(token, level, limit, given)
        ids = turns.next(asked - (before - limit.count))
        for run_id in ids:
            self._deliver(self.runs[run_id], "resume")
        limit.step = len(ids)
        self._read(token, "resume", limit, given)

    def _take(self, token: str, entry: Entry, again: bool, given: list[Given]) -> None:
        run = self.runs.get(entry.run_id)
        held = again and run is not None and run.state is RunState.RUNNING and run.owner == token
        if run is None or run.entry is not entry or not (run.state is RunState.QUEUED or held):
            self.spent.append(entry)
            return

        run.state, run.owner = RunState.RUNNING, token
        run.fence += 1
        records = len(run.journal) if run.fence > 1 else 0
        past = run.fence > 1 or run.attempt > 1
        given.append(
            Given(run.id, run.fence, entry.level, run.attempt, run.base, run.crashes,
                  run.refusals, records, past and run.messages > 0, entry)
        )  # fmt: skip

    # -- moving

    def _deliver(self, run: Run, level: str) -> None:
        entry = Entry(level, run.id)
        self.streams[level].append(entry)
        run.entry, run.state = entry, RunState.QUEUED

    def _place(self, run: Run) -> None:
        turns = self.turns[run.priority]
        if turns.admits(run.tenant, self._undelivered(run.priority), self.window):
            self._deliver(run, run.priority)
        else:
            run.entry, run.unentered, run.state = None, "", RunState.QUEUED
            turns.wait(run.id, run.tenant)

    def _top_up(self) -> None:
        for level, turns in self.turns.items():
            waiting = self._undelivered(level)
            if turns.backlog and waiting <= self.window / 4:
                for run_id in turns.next(self.window - waiting):
                    self._deliver(self.runs[run_id], level)
                turns.sole = SEVERAL
        if not any(each.backlog for each in self.turns.values()):
            for turns in self.turns.values():
                turns.forget()

    def _undelivered(self, level: str) -> int:
        return sum(entry.holder is None for entry in self.streams[level])

    def _requeue(self, run: Run) -> None:
        run.owner = ""
        if run.cancel:
            self._finish(run, RunState.CANCELLED, CANCELLED)
        else:
            self._give_back(run)
            self._deliver(run, "suspect" if run.suspect else "resume")

    def _finish(self, run: Run, state: RunState, payload: str) -> None:
        run.state, run.payload = state, payload
        self.ended[run.id] = False
        self._give_back(run)

    def _promote(self, index: dict[str, bool], expected: RunState) -> int:
        due = sorted(run_id for run_id, is_due in index.items() if is_due)
        for run_id in due:
            run = self.runs[run_id]
            assert run.state is expected
            begun = expected is RunState.PARKED or run.fence > 0
            if run.suspect or begun:
                self._deliver(run, "suspect" if run.suspect else "resume")
            else:
                self._place(run)
            del index[run_id]
        return len(due)

    def _bury(self, token: str, poison: int) -> tuple[int, int]:
        reclaimed = poisoned = 0
        for entry in [x for x in self.pending() if x.holder == token]:
            run = self.runs.get(entry.run_id)
            self.spent.append(entry)
            if run is None or run.entry is not entry:
                continue
            if run.state is RunState.QUEUED:
                self._requeue(run)
                reclaimed += 1
            elif run.state is RunState.RUNNING and run.owner == token:
                run.crashes = 1 if len(run.journal) > run.mark else run.crashes + 1
                run.mark = len(run.journal)
                if run.crashes >= poison:
                    run.owner = ""
                    text = f"{run.crashes} workers died while they held this run"
                    self._finish(run, RunState.FAILED, f'["worker_lost","{text}"]')
                    self.dead.add(run.id)
                    poisoned += 1
                else:
                    self._requeue(run)
                    reclaimed += 1
        self._flush()
        self.leases.pop(token, None)
        self.control.pop(token, None)
        return reclaimed, poisoned

    # -- looking

    def _held(self, token: str, run_id: str, fence: int) -> Run | None:
        run = self.runs.get(run_id)
        return run if run is not None and (run.fence, run.owner) == (fence, token) else None

    def _entry(self, level: str, name: str) -> Entry | None:
        found = [entry for entry in self.streams[level] if entry.name == name]
        return found[0] if found else None

    def _acknowledge(self, level: str, name: str) -> None:
        entry = self._entry(level, name)
        if entry is not None:
            self.spent.append(entry)

    def _flush(self) -> None:
        for level in LEVELS:
            self.streams[level] = [x for x in self.streams[level] if x not in self.spent]
        self.spent.clear()


@dataclass(slots=True)
class Remaining:
    """How many deliveries may still be taken, and how many of them in this step."""

    count: int
    step: int = 0

    def at_most(self, limit: int) -> Remaining:
        """Bound the next step."""
        self.step = min(limit, self.count)
        return self
