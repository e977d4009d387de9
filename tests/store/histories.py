"""What may happen to a lane, in any order: clients, three workers and time take turns.

Every rule does the same to the store and to the model, and compares the answers. A history that
fails is printed as the calls that repeat it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from millstream.model.limits import Limits
from millstream.model.outcome import Completed
from millstream.model.run import FINAL, Delivery, Priority, RunState
from millstream.store import deliveries, messages, runs
from millstream.store.commits import Verdict, Want
from millstream.store.connection import Connection
from millstream.store.keys import FRESH, GROUP, LEVELS
from millstream.store.messages import Message
from tests.store.bench import LONG_S, Bench
from tests.store.lines import MOST
from tests.store.model import HOLDS, Entry, Model, Op
from tests.store.view import look, to_given, to_item

T = TypeVar("T")

RECORDS = 3
MESSAGES = 3
LIMITS = Limits(journal_records=RECORDS, messages=MESSAGES)
TOKENS = ("w1", "w2", "w3")
IDS = ("r1", "r2", "r3", "r4", "r5")
POISON = 3

Pick = tuple[str, int, int, bool]

tokens = st.sampled_from(TOKENS)
ids = st.sampled_from(IDS)
names = st.sampled_from(["s:a", "s:b"])
tenants = st.sampled_from(["", "a", "b"])
several_ids = st.lists(ids, min_size=1, max_size=3)
few = st.sampled_from([1, 0, 2])
wants = st.tuples(few, few, few)
seldom = st.sampled_from([False, False, False, True])
# An item: what is done, to which of the deliveries that the worker remembers (those that it still
# holds come first), and a variant.
picks = st.lists(
    st.tuples(
        st.sampled_from("JJJEEDDRRPPWWWWLUAHKKK"),
        st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 7]),
        st.integers(0, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)

_names = itertools.count(1)


class History(RuleBasedStateMachine):
    """The store and its model, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.bench = Bench(self.connect())
        self.model = Model(RECORDS, MESSAGES)
        #: What each worker believes to hold, or to have held; the newest last.
        self.known: dict[str, list[Delivery]] = {token: [] for token in TOKENS}
        #: What the blocking read brought each worker, adopted or not.
        self.brought: dict[str, list[tuple[str, str]]] = {token: [] for token in TOKENS}
        #: Commits that may arrive once more.
        self.sent: list[tuple[str, list[Op]]] = []
        self.ready = False

    def connect(self) -> Connection:
        """The store that is driven."""
        return Connection(f"memory://fuzz-{next(_names)}")

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the store work."""
        return self.runner.run(work)

    @initialize(
        priority=st.sampled_from(Priority), window=st.sampled_from([1, 2, 5]), limited=st.booleans()
    )
    def prepare(self, priority: Priority, window: int, limited: bool) -> None:
        self.do(self.bench.prepare())
        self.do(self.hset_meta("window", window))
        self.model.window = window
        self.do(self.bench.renew(*TOKENS))
        self.model.leases = dict.fromkeys(TOKENS, HOLDS)
        self.ready = True
        self.enqueue(list(IDS[:3]), other=False, priority=priority, delayed=False, tenant="")
        self.take("w1", (0, 2, 0), suspect=False, lost=False)
        if limited:
            self.begin_under_limits("w1", 0)

    def teardown(self) -> None:
        try:
            if self.ready:
                self.do(self.bring_to_an_end())
        finally:
            self.do(self.bench.store.aclose())
            self.runner.close()

    # -- clients

    @rule(run_ids=several_ids, other=seldom, priority=st.sampled_from(Priority), delayed=seldom,
          tenant=tenants)  # fmt: skip
    def enqueue(
        self, run_ids: list[str], other: bool, priority: Priority, delayed: bool, tenant: str
    ) -> None:
        workflow = "else" if other and len(run_ids) == 1 else "flow"
        expected = [self.model.enqueue(x, workflow, priority, delayed, tenant) for x in run_ids]
        found = self.do(
            self.bench.accept(
                *run_ids, workflow=workflow, priority=priority, tenant=tenant,
                delay_s=LONG_S if delayed else 0,
            )
        )  # fmt: skip
        assert found == expected
        for run_id in {
            x for x, accepted in zip(run_ids, expected, strict=True) if accepted is True
        }:
            stored = self.do(self.bench.fields(run_id))["enqueued"]
            self.model.runs[run_id].enqueued = int(stored)

    @rule(run_id=ids, revived=seldom)
    def cancel(self, run_id: str, revived: bool) -> None:
        expected = self.model.cancel(run_id)
        assert self.do(self.bench.cancel(run_id)) == [expected]
        if revived:
            self.revive([run_id])

    @rule(run_id=ids, name=names, number=st.integers(0, 5))
    def signal(self, run_id: str, name: str, number: int) -> None:
        """Signals are sent once and again, to whoever waits for them and whoever does not."""
        expected = self.model.signal(run_id, name, str(number), f"m{number}")
        message = Message(run_id=run_id, name=name, payload=b"%d" % number, id=f"m{number}")
        sent = messages.send(self.bench.store, self.bench.lane, [message], 3600, LIMITS)
        assert self.do(sent) == [expected]

    @precondition(lambda self: self.in_state(RunState.FAILED, RunState.CANCELLED))
    @rule(run_ids=several_ids)
    def revive(self, run_ids: list[str]) -> None:
        expected = [self.model.revive(run_id) for run_id in run_ids]
        assert self.do(self.bench.revive(*run_ids)) == expected

    # -- workers

    @precondition(lambda self: self.in_state(RunState.QUEUED))
    @rule(token=tokens, want=wants, suspect=st.booleans(), lost=seldom)
    def take(self, token: str, want: tuple[int, int, int], suspect: bool, lost: bool) -> None:
        self.send(token, [], want=want, suspect=suspect, lost=lost)

    @precondition(lambda self: any(self.known.values()))
    @rule(number=st.integers(0, 2), picked=picks, want=wants, lost=seldom)
    def commit(
        self, number: int, picked: list[Pick], want: tuple[int, int, int], lost: bool
    ) -> None:
        token = self.busy(number)
        ops = self.ops(token, picked)
        self.send(token, ops, want=want, suspect=False, lost=lost)
        self.sent = [*self.sent[-9:], (token, ops)]

    @precondition(lambda self: any(self.known.values()))
    @rule(number=st.integers(0, 2), picked=picks)
    def write(self, number: int, picked: list[Pick]) -> None:
        token = self.busy(number)
        ops = self.ops(token, picked)
        self.send(token, ops, want=(0, 0, 0), suspect=False, lost=False)
        self.sent = [*self.sent[-9:], (token, ops)]

    @precondition(lambda self: self.in_state(RunState.RUNNING))
    @rule(number=few, steps=st.lists(st.tuples(st.sampled_from("JJE"), few, st.integers(0, 5),
                                               st.booleans()), min_size=1, max_size=3))  # fmt: skip
    def make_progress(self, number: int, steps: list[Pick]) -> None:
        """The holder of a run records what it did."""
        running = [run for run in self.model.runs.values() if run.state is RunState.RUNNING]
        token = running[number % len(running)].owner
        if self.known.get(token):
            ops = self.ops(token, steps)
            self.send(token, ops, want=(0, 0, 0), suspect=False, lost=False)
            self.sent = [*self.sent[-9:], (token, ops)]

    @precondition(lambda self: self.in_state(RunState.RUNNING))
    @rule(token=tokens, variant=st.sampled_from([0, 0, 5, 1, 2, 3, 4]))
    def begin_under_limits(self, token: str, variant: int) -> None:
        """A worker asks whether what it has taken may go on."""
        if self.known[token]:
            ops = self.ops(token, [("K", pick, variant, False) for pick in (1, 0)])
            self.send(token, ops, want=(0, 0, 0), suspect=False, lost=False)
            self.sent = [*self.sent[-9:], (token, ops)]

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 9))
    def commit_arrives_again(self, number: int) -> None:
        token, ops = self.sent[-1 - number % len(self.sent)]
        self.send(token, ops, want=(0, 0, 0), suspect=False, lost=False)

    @precondition(lambda self: any(self.known.values()))
    @rule(number=st.integers(0, 2), thief=tokens, picked=picks)
    def another_writes(self, number: int, thief: str, picked: list[Pick]) -> None:
        """A worker says what only another may say."""
        ops = self.ops(self.busy(number), picked)
        self.send(thief, ops, want=(0, 0, 0), suspect=False, lost=False)

    @precondition(lambda self: self.in_state(RunState.QUEUED))
    @rule(token=tokens, lost=seldom)
    def read(self, token: str, lost: bool) -> None:
        expected = self.model.read(token)
        found = self.do(self.read_now(token))
        assert [(level, run_id) for level, _, run_id in found] == expected
        if not lost:
            self.brought[token] += [(level, entry) for level, entry, _ in found]

    @precondition(lambda self: any(self.model.pending()))
    @rule(token=tokens, count=st.integers(0, 4))
    def settle_the_account(self, token: str, count: int) -> None:
        """Compare what is pending with what is held, and adopt the difference."""
        named = {held.run_id: held for held in self.known[token][-count:] if count}
        expected = self.model.holdings(token, [(x.run_id, x.fence) for x in named.values()])
        account = self.do(
            deliveries.holdings(self.bench.store, self.bench.lane, token, list(named.values()))
        )
        lost, cancelled, addressed, strays = expected
        assert account.lost == lost
        assert account.addressed == addressed
        assert account.cancelled == cancelled
        assert [stray.level for stray in account.strays] == [level for level, _ in strays]
        ops = [Op("A", level=stray.level, entry=stray.entry) for stray in account.strays]
        self.send(token, ops, want=(0, 0, 0), suspect=False, lost=False)

    @precondition(lambda self: any(score < HOLDS for score in self.model.leases.values()))
    @rule(token=tokens)
    def renew(self, token: str) -> None:
        self.do(self.bench.renew(token))
        self.model.leases[token] = HOLDS

    @precondition(lambda self: any(self.model.pending()))
    @rule(number=few, sweeper=tokens, listing=seldom)
    def worker_is_lost(self, number: int, sweeper: str, listing: bool) -> None:
        """The lease runs out; the process itself may go on and write."""
        holders = sorted({entry.holder or "" for entry in self.model.pending()})
        token = holders[number % len(holders)]
        if token in self.model.leases:
            self.lapse(token)
        self.sweep(sweeper, listing)

    @precondition(lambda self: self.in_state(RunState.QUEUED))
    @rule(token=tokens, times=st.integers(1, POISON))
    def worker_is_lost_again_and_again(self, token: str, times: int) -> None:
        """Whatever it takes, it dies of."""
        for _ in range(times):
            self.renew(token)
            self.take(token, (1, 2, 1), suspect=True, lost=False)
            self.lapse(token)
            self.sweep("another", listing=False)

    @rule(token=tokens, listing=seldom)
    def sweep(self, token: str, listing: bool) -> None:
        listed = sorted(self.do(self.bench.consumers())) if listing else []
        if listing:
            self.do(self.hset_meta("listed", 0))
        told, addressed, promoted, reclaimed, poisoned = self.model.sweep(token, POISON, listed)
        swept = self.do(self.bench.sweep(token, poison=POISON))
        assert set(swept.cancelled) == told
        assert set(swept.addressed) == addressed
        assert (swept.promoted, swept.reclaimed, swept.poisoned) == (promoted, reclaimed, poisoned)

    # -- time

    @precondition(lambda self: self.in_state(RunState.SCHEDULED, RunState.PARKED))
    @rule(number=st.integers(0, 4), swept=st.booleans())
    def time_comes(self, number: int, swept: bool) -> None:
        waiting = self.in_state(RunState.SCHEDULED, RunState.PARKED)
        run_id = waiting[number % len(waiting)]
        for index in (self.model.timers, self.model.parked):
            if run_id in index:
                index[run_id] = True
        self.do(self.bench.fall_due(run_id))
        if swept:
            self.sweep("w1", listing=False)

    @precondition(lambda self: self.in_state(*FINAL))
    @rule(number=st.integers(0, 4))
    def record_expires(self, number: int) -> None:
        ended = self.in_state(*FINAL)
        run_id = ended[number % len(ended)]
        del self.model.runs[run_id]
        self.model.ended[run_id] = True
        self.do(self.bench.expire(run_id))
        # No message is delayed for longer than the retention: a new run of this id begins again at
        # the first fence, and would believe it.
        for token in TOKENS:
            self.known[token] = [held for held in self.known[token] if held.run_id != run_id]
        self.sent = [(token, [op for op in ops if op.run_id != run_id]) for token, ops in self.sent]

    # -- what holds after every step

    @invariant()
    def the_store_equals_the_model(self) -> None:
        if not self.ready:
            return
        seen = self.do(look(self.bench, IDS))
        self.compare_streams(seen)
        self.compare_runs(seen)
        for level in FRESH:
            assert seen[self.bench.lane.backlog(level)] == self.model.turns[level].backlog
        model, lane = self.model, self.bench.lane
        assert set(seen[lane.timers]) == set(model.timers)
        assert set(seen[lane.parked]) == set(model.parked)
        assert set(seen[lane.ended]) == set(model.ended)
        assert set(seen[lane.dead]) == model.dead
        assert set(seen[lane.leases]) == set(model.leases)
        assert seen["depth"] == model.depth()
        self.compare_lines(seen)

    def compare_streams(self, seen: dict[str, Any]) -> None:
        for level in LEVELS:
            entries: list[Entry] = self.model.streams[level]
            found = seen[self.bench.lane.stream(level)]
            assert [run_id for _, run_id, _ in found] == [entry.run_id for entry in entries]
            for entry, (name, _, holder) in zip(entries, found, strict=True):
                assert entry.name in (None, name)
                assert entry.holder == holder
                entry.name = name

    def compare_lines(self, seen: dict[str, Any]) -> None:
        waiting = []
        for name, line in self.model.limits.items():
            holders, found = seen[f"limit {name}"]
            assert (holders, found) == (line.holders, line.order)
            # Read from the store alone, as places are.
            assert len(holders) <= MOST[name]
            assert len(holders) == MOST[name] or not found, "a permit that nobody has, and a line"
            assert all(seen[x][0]["state"] in {"queued", "running"} for x in holders)
            waiting += found
        assert sorted(seen[self.bench.lane.limited]) == sorted(waiting)

    def compare_runs(self, seen: dict[str, Any]) -> None:
        for run_id in IDS:
            fields, journal, events, mail = seen[run_id]
            run = self.model.runs.get(run_id)
            if run is None:
                assert (fields, journal, events, mail) == ({}, {}, [], {})
                continue
            assert fields == {
                "state": run.state, "workflow": run.workflow, "fence": run.fence,
                "owner": run.owner, "attempt": run.attempt, "base": run.base,
                "crashes": run.crashes, "refusals": run.refusals, "cancel": run.cancel,
                "version": run.version, "payload": run.payload,
                # An entry that came and went within one step was never seen.
                "entry": (run.entry.name or fields["entry"]) if run.entry else run.unentered,
            }  # fmt: skip
            assert journal == run.journal
            assert events == run.events
            assert mail == {name: [x for _, x in waiting] for name, waiting in run.mail.items()}
            self.check_place(run_id, seen)

    def check_place(self, run_id: str, seen: dict[str, Any]) -> None:
        """Every living run is in exactly one place where somebody will find it.

        Read from the store alone: the model could be wrong in the same way.
        """
        fields, lane = seen[run_id][0], self.bench.lane
        places = [name for name in ("timers", "parked") if run_id in seen[lane.prefix + name]]
        for level in LEVELS:
            for name, found, holder in seen[lane.stream(level)]:
                if found == run_id and name == fields["entry"] and fields["state"] not in FINAL:
                    places.append("held by " + holder if holder else "waiting")
        for level in FRESH:
            backlog = [found for _, found in seen[lane.backlog(level)]]
            if run_id in backlog:
                places.append("for its turn")
                # It is found by whoever finds what stands in a stream, and there must be something.
                assert any(seen[lane.stream(x)] for x in (level, "resume", "suspect"))
        places += ["for a permit"] * seen[lane.limited].count(run_id)
        match fields["state"]:
            case "scheduled":
                assert places == ["timers"]
            case "parked":
                assert places == ["parked"]
            case "queued":
                # Delivered to somebody who has not begun counts as waiting: a sweep finds it.
                assert len(places) == 1
            case "running":
                assert places == ["held by " + fields["owner"]]
            case _:
                assert places == []

    # -- how it is done

    def in_state(self, *states: RunState) -> list[str]:
        return [run.id for run in self.model.runs.values() if run.state in states]

    def busy(self, number: int) -> str:
        """A worker that remembers a delivery."""
        found = [token for token in TOKENS if self.known[token]]
        return found[number % len(found)]

    def ops(self, token: str, picked: list[Pick]) -> list[Op]:
        return [op for pick in picked if (op := self.op(token, *pick)) is not None]

    def op(self, token: str, kind: str, pick: int, variant: int, drop: bool) -> Op | None:
        """An item about one of the deliveries that a worker remembers; None when there is none."""
        if kind in "AH":
            addresses = self.brought[token] + [(x.level, x.entry) for x in self.known[token]]
            if not addresses:
                return None
            level, entry = addresses[-1 - pick % len(addresses)]
            return Op(kind, level=level, entry=entry)

        held = self.known[token]
        if not held:
            return None
        about = sorted(held, key=lambda x: self.model.holds(token, x.run_id, x.fence))[
            -1 - pick % len(held)
        ]
        key = f"e{variant % 2}" if kind == "E" else f"k{variant % 4}"
        records: tuple[tuple[str, str], ...] = ((key, f"{token}.{about.fence}.{variant}"),)
        if kind == "J" and drop:
            records += ((f"k{(variant + 1) % 4}", "x" * (variant + 1)),)
        state = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)[variant % 3]
        awaits: tuple[str, ...] = ()
        if kind == "W":
            records = ((f"w{variant % 2}", ("open", "", "late")[variant % 3]),)
            awaits = ("s:a" if drop else "s:b",)
        if kind == "P":
            awaits = (("s:a",), ("s:a", "s:b"), ())[variant % 3]
        limits = (("one",), ("two",), ("one", "two"), ("two", "one"), (), ("one",))[variant]
        run = self.model.runs.get(about.run_id)
        heard = run.messages if run is not None and drop else 0
        dropped = ("k0", "k1") if drop and state is not RunState.COMPLETED else ()
        return Op(
            kind, about.run_id, about.fence, about.level, about.entry, str(variant % 2), records,
            state, f"payload {variant}", dropped, awaits, heard,
            limits,
        )  # fmt: skip

    def send(
        self,
        token: str,
        ops: Sequence[Op],
        *,
        want: tuple[int, int, int],
        suspect: bool,
        lost: bool,
    ) -> None:
        """Send a commit; a lost reply is compared with the model, but the worker never sees it."""
        verdicts, given = self.model.commit(token, ops, want, suspect)
        reply = self.do(
            self.bench.commit(
                token, *map(to_item, ops), want=Want(*want, suspect=suspect), limits=LIMITS
            )
        )
        assert list(reply.verdicts) == verdicts
        assert [to_given(held) for held in reply.taken] == given
        for expected, held in zip(given, reply.taken, strict=True):
            assert expected.entry is not None
            expected.entry.name = held.entry
        if not lost:
            self.known[token] = [*self.known[token], *reply.taken][-8:]

    def lapse(self, *lapsed: str) -> None:
        self.do(self.bench.lapse(*lapsed))
        for token in lapsed:
            self.model.leases[token] = 1

    async def read_now(self, token: str) -> list[tuple[str, str, str]]:
        """The blocking read, without blocking."""
        streams = [self.bench.lane.stream(level) for level in LEVELS]
        reply = await self.bench.redis.xreadgroup(
            GROUP, token, dict.fromkeys(streams, ">"), count=1
        )
        return [
            (LEVELS[streams.index(stream.decode())], entry.decode(), fields[b"id"].decode())
            for stream, entries in reply
            for entry, fields in entries
        ]

    async def hset_meta(self, name: str, value: int) -> None:
        await self.bench.redis.hset(self.bench.lane.meta, name, value)

    async def bring_to_an_end(self) -> None:
        """Every worker dies; a new one must be able to end everything, by the store alone."""
        bench = self.bench
        before = [run_id for run_id in IDS if await bench.state(run_id)]
        for _ in range(10):
            await bench.renew("last")
            await bench.lapse(*TOKENS)
            await bench.fall_due(*IDS)
            await self.hset_meta("listed", 0)
            await bench.sweep("last", poison=POISON)
            for held in await bench.take("last", 9):
                assert await bench.end(held, Completed(b"1"), "last") is Verdict.WRITTEN
            depth = await runs.depth(bench.store, bench.lane)
            if not (
                depth.waiting or depth.running or depth.scheduled or depth.parked or depth.limited
            ):
                break

        for run_id in before:
            state = await bench.state(run_id)
            assert state in FINAL, f"{run_id} is {state} for ever"
        assert await bench.pending() == []
        assert await bench.waiting() == []
