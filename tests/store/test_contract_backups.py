"""A copy of a store in use, brought back into an empty one: what ran goes on from there."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from millstream.errors import BrokenBackup, StoreInUse
from millstream.model.audit import Act
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.outcome import Cancelled, Completed, Failed, Parked
from millstream.model.run import Delivery, RunState
from millstream.model.schedule import Progress, Schedule
from millstream.model.trial import Trial
from millstream.store import (
    api_keys,
    audit,
    codec,
    commits,
    conversations,
    messages,
    outbox,
    pushes,
    schedules,
    spills,
    trials,
    withdrawals,
)
from millstream.store.archives import MAGIC, Frame, Reader, Writer
from millstream.store.backups import Backup
from millstream.store.commits import Child
from millstream.store.connection import Connection
from millstream.store.conversations import Subject
from millstream.store.keys import Lane
from millstream.store.messages import Message
from millstream.store.restores import MARK, Restore
from tests.store.bench import RETENTION_S, Bench, ending

pytestmark = pytest.mark.anyio


def record(value: object) -> bytes:
    done = Record(StepKind.STEP, "act", "", RecordStatus.OK, value, began=1.0)
    return codec.encode_record(done, 10**6)


async def copied(bench: Bench) -> list[Frame]:
    """Every frame of a copy, on the way through a file."""
    file = io.BytesIO()
    writer = Writer(file)
    async for frame in Backup(bench.store).frames():
        writer.add(frame)
    writer.close()
    file.seek(0)
    return list(Reader(file).frames())


async def brought_back(store: Connection, frames: list[Frame]) -> Restore:
    task = Restore(store, RETENTION_S)
    await task.begin()
    await task.write(frames)
    await task.finish()
    return task


async def emptied(bench: Bench) -> None:
    await bench.redis.flushall()


async def round_trip(bench: Bench) -> None:
    """Lose everything, and bring a copy back: to workers that come up anew."""
    frames = await copied(bench)
    await emptied(bench)
    await brought_back(bench.store, frames)
    await bench.prepare()


async def test_what_waits_waits_in_the_order_and_at_the_level_of_before(bench: Bench) -> None:
    """Thousands of runs that come back in the order of a hash table would starve the oldest."""
    names = [f"r{n}" for n in range(30)]
    for name in names:
        await bench.accept(name, priority="low" if name.endswith("7") else "normal")
    await bench.accept(*(f"s{n}" for n in range(30)))
    names += [f"s{n}" for n in range(30)]
    before = await bench.waiting()
    await round_trip(bench)

    assert await bench.waiting() == before
    assert {await bench.state(name) for name in names} == {RunState.QUEUED}
    assert sorted(x.run_id for x in await bench.take("w2", 99)) == sorted(names)


async def test_what_ran_goes_on_from_its_journal_and_nobody_of_before_may_write(
    bench: Bench,
) -> None:
    """It goes ahead of what had not begun, under a fence that no worker of before has."""
    held = await bench.held("begun", tenant="t", timeout_s=9.0)
    journal = commits.journal(held, [("a", record(1)), ("b", record(2))], "3")
    await bench.verdict("w1", journal)
    await bench.accept("waits")
    await round_trip(bench)

    (again,) = await bench.take("w2")
    assert (again.run_id, again.level, again.version, again.records) == ("begun", "resume", "3", 2)
    assert (again.tenant, again.timeout_s, again.crashes) == ("t", 9.0, 0)
    assert again.fence > held.fence
    assert await bench.journal("begun") == {"a": record(1), "b": record(2)}
    for item in (journal, ending(held, Completed(b"1"))):
        assert (await bench.verdict("w1", item)).name == "FENCED"
    assert (await bench.end(again, Completed(b"1"), "w2")).name == "WRITTEN"


async def test_what_waits_for_a_time_or_a_signal_goes_on_waiting(bench: Bench) -> None:
    """A time that has passed has come; a signal that had come is there."""
    await bench.accept("late", delay_s=1000.0)
    await bench.accept("due", delay_s=1000.0)
    held = await bench.held("patient")
    await bench.end(held, Parked(None, 0.0, 0, ("s:go",)))
    noisy = await bench.held("noisy")
    sent = Message(run_id="noisy", name="s:go", payload=b"1", id="x")
    await messages.send(bench.store, bench.lane, [sent], RETENTION_S)
    await bench.end(noisy, Parked(9e9, 0.0, 1, ("s:stop",)))
    await bench.fall_due("due")
    await round_trip(bench)

    # The first look of whoever comes up has promoted it.
    assert await bench.waiting() == [("normal", "due")]
    assert [await bench.state(x) for x in ("late", "patient", "noisy")] == [
        RunState.SCHEDULED, RunState.PARKED, RunState.PARKED,
    ]  # fmt: skip
    other = replace(sent, run_id="patient")
    answers = await messages.send(bench.store, bench.lane, [other, sent], RETENTION_S)
    assert answers == ["kept", "known"]
    assert ("resume", "patient") in await bench.waiting()


async def test_ends_are_kept_for_as_long_as_they_had_left(bench: Bench) -> None:
    """A copy of yesterday must not bring back results that expire at once."""
    for name, outcome in (("good", Completed(b"[1]")), ("bad", Failed("E", "e"))):
        await bench.end(await bench.held(name), outcome)
    for key in (bench.lane.run("good"), bench.lane.run("bad")):
        await bench.redis.pexpire(key, 100_000)
    await round_trip(bench)

    assert [await bench.state(x) for x in ("good", "bad")] == [RunState.COMPLETED, RunState.FAILED]
    assert 90_000 < await bench.redis.pttl(bench.lane.run("good")) <= 100_000
    assert await bench.redis.zrange(bench.lane.dead, 0, -1) == [b"bad"]
    assert await bench.redis.zcard(bench.lane.ended) == 2
    assert await bench.accept("good") == [False]
    assert await bench.revive("bad") == ["queued"]


async def test_events_and_large_values_come_along(bench: Bench) -> None:
    held = await bench.held("r1")
    large = b"x" * (spills.PART + 5)
    spilled = spills.reference("big", large)
    await spills.keep(bench.store, bench.lane, "w1", held, spilled, large)
    await bench.verdict("w1", commits.journal(held, [("big", record(spilled))], "1"))
    await bench.verdict("w1", commits.emit(held, "said", record(None), b'{"n":1}', "1"))
    said = await bench.redis.xrange(bench.lane.events("r1"))
    await round_trip(bench)

    assert await bench.redis.xrange(bench.lane.events("r1")) == said
    assert await spills.load(bench.store, bench.lane, "r1", spilled) == large
    (again,) = await bench.take("w2")
    await bench.end(again, Completed(b"1"), "w2")
    assert await bench.redis.pttl(bench.lane.spilled("r1")) > 0


# -- parents and children


@pytest.fixture
async def kids(bench: Bench) -> Bench:
    made = replace(bench, lane=Lane("kids"))
    await made.prepare()
    return made


START = outbox.encoded(outbox.Start(workflow="flow", arguments=msgspec.Raw(b"{}"), attempt=1))
WAIT = Record(StepKind.CHILD, "flow", "", RecordStatus.WAITING, "kid", began=1.0)


async def parent(bench: Bench) -> Delivery:
    held = await bench.held("dad")
    waits = codec.encode_record(WAIT, 1000)
    item = commits.start_child(held, "k", waits, Child("kid", "kids", START), "1")
    assert (await bench.verdict("w1", item)).name == "WRITTEN"
    return held


async def dispatched(*benches: Bench) -> None:
    for each in benches:
        await outbox.dispatch(each.store, each.lane, RETENTION_S)


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench, Callable[[], Any]], None]:
    """Have something happen right after the parent was read, before anything else is."""

    def arrange(bench: Bench, act: Callable[[], Any]) -> None:
        read = Backup._runs

        async def then(self: Backup, lane: Lane, ids: Any, side: str) -> AsyncIterator[Frame]:
            async for frame in read(self, lane, ids, side):
                yield frame
                if frame[0] == "run" and frame[3] == "dad":
                    await act()

        monkeypatch.setattr(Backup, "_runs", then)

    return arrange


@pytest.mark.parametrize("when", ["before", "during", "never"])
async def test_a_child_that_its_parent_waits_for_is_there_however_late_it_was_started(
    bench: Bench, kids: Bench, during: Callable[..., None], when: str
) -> None:
    """Its start is in the outbox of the copy, or the child itself is."""
    await parent(bench)
    if when == "before":
        await dispatched(bench)
    if when == "during":
        during(bench, lambda: dispatched(bench))
    await round_trip(bench)
    await kids.prepare()
    await dispatched(bench, kids)

    assert await kids.waiting() == [("normal", "kid")]
    (child,) = await kids.take("w2")
    await kids.end(child, Completed(b"7"), "w2")
    await dispatched(kids)
    box = await bench.redis.hgetall(bench.lane.received("dad"))
    assert box[b"#ends"] == b"1"


async def test_a_task_of_another_agent_that_was_left_is_still_withdrawn(bench: Bench) -> None:
    """What the lane had to say of it is not copied: it is said anew."""
    held = await bench.held("r1")
    task = withdrawals.Task("them", "t1", "c1")
    record = codec.encode_record(WAIT, 1000)
    await bench.verdict("w1", commits.entrust(held, "k", record, withdrawals.noted(task), "1"))
    await bench.end(held, Cancelled())
    await round_trip(bench)
    await dispatched(bench)
    assert await withdrawals.claim(bench.store, "default", 60) == [
        withdrawals.Withdrawal("r1", task)
    ]


async def test_an_end_that_the_parent_had_not_heard_of_is_told_again(
    bench: Bench, kids: Bench, during: Callable[..., None]
) -> None:
    """The parent was read before it heard, and the child's outbox after it had told."""
    await parent(bench)
    await dispatched(bench)
    (child,) = await kids.take("w2")

    async def ends() -> None:
        await kids.end(child, Completed(b"7"), "w2")
        await dispatched(kids)

    during(bench, ends)
    # The lane of the parent is read first: that of the child has nothing before.
    frames = await copied(bench)
    order = [frame[3] for frame in frames if frame[0] == "run"]
    await emptied(bench)
    await brought_back(bench.store, frames)
    await bench.prepare()
    await kids.prepare()
    await dispatched(bench, kids)

    if order == ["dad", "kid"]:
        assert await kids.state("kid") is RunState.COMPLETED
        assert (await bench.redis.hgetall(bench.lane.received("dad")))[b"#ends"] == b"1"
    else:
        assert await kids.waiting() == [("resume", "kid")]


async def test_what_came_after_the_copy_began_is_not_in_it(
    bench: Bench, during: Callable[..., None]
) -> None:
    """A run that its copied parent does not know of would clash with the one it starts anew."""
    await bench.accept("dad")
    during(bench, lambda: bench.accept("late"))
    frames = await copied(bench)
    assert [frame[3] for frame in frames if frame[0] == "run"] == ["dad"]


# -- what is no run


async def test_queues_trials_schedules_keys_and_the_trail_come_along(bench: Bench) -> None:
    await bench.redis.hset(bench.lane.meta, mapping={"lanes": "3", "epoch": "2", "past": "1"})
    paused = replace(bench, lane=Lane("quiet"))
    await paused.prepare()
    await paused.redis.hset(paused.lane.meta, "paused", "1")
    trial = Trial(workflow="flow", version="2", kept="1", share=1.0, started=1.0, changed=1.0)
    await trials.change(bench.store, [bench.lane], "flow", None, trial)
    schedule = Schedule("nightly", "flow", every=60)
    await schedules.write(
        bench.store,
        [schedules.Written("nightly", 0, Progress(next=5.0), 5.0, schedules.encode(schedule))],
    )
    key, text = await api_keys.create(
        bench.store, name="k", roles=("viewer",), tenant=None, lasts_s=None
    )
    await api_keys.revoke(bench.store, key.id)
    act = Act(actor="a", origin="o", verb="cancel", queue="default", target="r1", result="ok")
    end = await audit.append(bench.store, [act, act])
    await round_trip(bench)

    layout = await bench.redis.hmget(bench.lane.meta, "lanes", "epoch", "past", "paused", "trials")
    assert layout == [b"3", b"2", b"1", None, b"flow 2 1 10000"]
    assert await paused.redis.hget(paused.lane.meta, "paused") == b"1"
    assert trials.decode((await trials.read(bench.store, bench.lane))["flow"]) == trial
    due = await schedules.due(bench.store)
    assert [x.name for x in due.schedules] == ["nightly"]
    found = await api_keys.find(bench.store, key.id)
    taken = api_keys.taken_apart(text)
    assert found is not None
    assert taken is not None
    assert api_keys.fits(found, taken[1])
    assert found.revoked is not None
    assert (await audit.bounds(bench.store))[1] == end
    assert (await audit.append(bench.store, [act])).seq == 3


async def test_conversations_come_along_and_whoever_wants_to_be_told_is_told(bench: Bench) -> None:
    """Of what was told after the copy nobody knows: it is told again."""
    subject = Subject("default", "r/1")
    await conversations.begin(bench.store, subject, context="c", owner="key:a")
    wish = pushes.Wish(id="w", url="https://example.com/hook")
    await pushes.put(bench.store, subject, wish, pushes.Progress(after="5-0"))
    await bench.redis.zadd(pushes.DUE, {pushes.Errand(subject, "w").member: 9e15})
    copy = Backup(bench.store)
    async for _ in copy.frames():
        pass
    assert copy.unknown == 0
    await round_trip(bench)

    (errand,) = await pushes.claim(bench.store, 10.0)
    assert errand == pushes.Errand(subject, "w")
    assert await pushes.read(bench.store, errand) == (wish, pushes.Progress(after="5-0"))
    assert await bench.redis.pttl(subject.key) > 0


async def test_a_trail_that_was_trimmed_is_still_a_chain(bench: Bench) -> None:
    act = Act(actor="a", origin="o", verb="v", queue="q", target="t", result="ok")
    for _ in range(5):
        await audit.append(bench.store, [act], most=3)
    bounds = await audit.bounds(bench.store)
    await round_trip(bench)

    assert await audit.bounds(bench.store) == bounds
    numbers = [line.number async for line in audit.lines(bench.store, bounds[0].seq)]
    assert numbers == [3, 4, 5]


async def test_what_living_processes_say_is_left_out(bench: Bench) -> None:
    """A copy that brought back leases would have everybody wait for the dead."""
    await bench.held("r1")
    await bench.renew("w1")
    await bench.redis.hset(bench.lane.agents, "w1", "{}")
    await bench.redis.set("millstream:{session}:abc", "1")
    frames = await copied(bench)
    await emptied(bench)
    await brought_back(bench.store, frames)

    assert await bench.keys() == {
        bench.lane.run("r1"), bench.lane.stream("resume"),
    }  # fmt: skip


async def test_every_kind_of_key_is_copied_or_left_out_on_purpose(bench: Bench) -> None:
    """A kind that is new would be lost without a word."""
    await bench.redis.set("millstream:{default:0}:novelty", "1")
    await bench.redis.set("millstream:{novel}:thing", "1")
    copy = Backup(bench.store)
    async for _ in copy.frames():
        pass
    assert (copy.unknown, copy.unknown_key != "") == (2, True)


# -- what goes wrong


async def test_a_store_that_is_not_empty_is_refused(bench: Bench) -> None:
    await bench.accept("r1")
    before = await bench.snapshot()
    with pytest.raises(StoreInUse, match="not empty"):
        await Restore(bench.store, RETENTION_S).begin()
    assert await bench.snapshot() == before


async def test_a_restore_that_was_cut_off_is_seen(bench: Bench) -> None:
    """Nobody has taken a run of it, and nobody takes it for a whole store."""
    await bench.accept("r1", "r2")
    frames = await copied(bench)
    await emptied(bench)
    task = Restore(bench.store, RETENTION_S)
    await task.begin()
    await task.write(frames)

    assert await bench.redis.exists(MARK)
    assert await bench.redis.hget(bench.lane.meta, "paused") == b"1"
    with pytest.raises(StoreInUse, match="cut off"):
        await Restore(bench.store, RETENTION_S).begin()


def written(*frames: Frame) -> bytes:
    file = io.BytesIO()
    writer = Writer(file)
    for frame in frames:
        writer.add(frame)
    writer.close()
    return file.getvalue()


def read(data: bytes) -> list[Frame]:
    return list(Reader(io.BytesIO(data)).frames())


def test_a_file_says_what_was_written() -> None:
    frames: list[Frame] = [["run", "q", 0, "r", {b"a": b"\xff" * 3_000_000}], ["lane", "q", 0]]
    assert read(written(*frames)) == frames


@pytest.mark.parametrize("part", [0.0, 0.2, 0.7, 0.999])
def test_a_file_that_was_cut_off_is_refused(part: float) -> None:
    """Wherever: at the worst between two frames, where nothing looks wrong."""
    data = written(*(["run", "q", 0, f"r{n}", {}] for n in range(2000)))
    with pytest.raises(BrokenBackup):
        read(data[: int(len(data) * part)])


@pytest.mark.parametrize("what", ["cut between frames", "changed", "another format", "longer"])
def test_a_file_that_is_another_one_is_refused(what: str) -> None:
    import gzip

    plain = gzip.decompress(written(["run", "q", 0, "first"], ["run", "q", 0, "second"]))
    end = plain.index(b"\x93\xa3end") - 4
    changed = {
        "cut between frames": plain[:end],
        "changed": plain.replace(b"first", b"thirt"),
        "another format": plain.replace(MAGIC, b"millstream-backup 9\n"),
        "longer": plain + b"x",
    }[what]
    with pytest.raises(BrokenBackup):
        read(gzip.compress(changed))
    assert len(read(gzip.compress(plain))) == 2
