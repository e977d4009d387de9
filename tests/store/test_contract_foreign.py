"""Something else stands where a part of a run belongs: that run pays for it, and nobody else."""

from __future__ import annotations

import msgspec
import pytest

from millstream.errors import KeyOccupied, StoreError
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limits import Limits
from millstream.model.outcome import Cancelled, Completed, Failed, Parked, Released, Retry
from millstream.model.run import Priority, RunState
from millstream.store import (
    codec,
    commits,
    deliveries,
    forks,
    journals,
    listing,
    losses,
    messages,
    outbox,
    results,
    runs,
    withdrawals,
)
from millstream.store.commits import Verdict, Want
from millstream.store.losses import BEGINNING
from millstream.store.runs import NewRun
from tests.store.bench import LEASE_S, RETENTION_S, Bench, ending

GO = "s:go"
RECORD = Record(StepKind.SIGNAL, "go", "", RecordStatus.OK, began=1.0, by="w1")
WAITING = codec.encode_record(RECORD._replace(status=RecordStatus.WAITING), 1000)
PARTS = codec.record_parts(RECORD, RecordStatus.WAITING)
WANT = Want(high=1, normal=5, low=1, suspect=True)


async def occupy(bench: Bench, key: str) -> None:
    """Another program keeps something under a key of ours."""
    await bench.redis.delete(key)
    await bench.redis.set(key, "not yours")


@pytest.mark.parametrize("written", [False, True], ids=["a new journal", "a journal"])
@pytest.mark.parametrize("count", [1, 600])
async def test_a_foreign_journal_costs_its_own_run(bench: Bench, written: bool, count: int) -> None:
    """The batch is sent until it is answered: refused whole, the lane would stand for ever."""
    held = await bench.held("r1")
    beside = await bench.held("r2")
    if written:
        await bench.verdict("w1", commits.journal(held, [("a", b"1")], "1"))
    await occupy(bench, bench.lane.journal("r1"))
    before = await bench.fields("r1")
    pairs = [(f"s{n}", b"1") for n in range(count)]

    reply = await bench.commit(
        "w1",
        commits.journal(beside, [("a", b"1")], "1"),
        commits.journal(held, pairs, "1"),
        commits.journal(beside, [("b", b"2")], "1"),
        ending(beside, Completed(b"2")),
    )

    assert reply.verdicts == (
        Verdict.WRITTEN, Verdict.OCCUPIED, Verdict.WRITTEN, Verdict.WRITTEN,
    )  # fmt: skip
    assert await bench.fields("r1") == before
    assert await bench.journal("r2") == {"a": b"1", "b": b"2"}
    assert await bench.end(held, Failed("KeyOccupied", "it is")) is Verdict.WRITTEN
    assert await bench.state("r1") is RunState.FAILED
    assert await bench.pending() == []


@pytest.mark.parametrize("part", ["events", "journal"])
async def test_what_cannot_be_said_is_not_journaled(bench: Bench, part: str) -> None:
    """A record without its event would keep the event from being said later."""
    held = await bench.held("r1")
    key = getattr(bench.lane, part)("r1")
    await occupy(bench, key)
    said = commits.emit(held, "e", b"said", b'["n",1]', "1")

    assert await bench.verdict("w1", said) is Verdict.OCCUPIED
    assert await bench.verdict("w1", said) is Verdict.OCCUPIED
    assert "bytes" not in await bench.fields("r1")
    assert (await bench.keys()) & {bench.lane.events("r1"), bench.lane.journal("r1")} == {key}

    await bench.redis.delete(key)
    assert await bench.verdict("w1", said) is Verdict.WRITTEN
    assert await bench.journal("r1") == {"e": b"said"}


async def test_an_event_that_the_journal_has_no_room_for_is_not_said(bench: Bench) -> None:
    """It would be said again by every replay."""
    held = await bench.held("r1")
    said = commits.emit(held, "e", b"x" * 20, b'["n",1]', "1")

    assert await bench.verdict("w1", said, Limits(journal_bytes=10)) is Verdict.FULL
    assert bench.lane.events("r1") not in await bench.keys()


async def test_a_foreign_record_is_no_run(bench: Bench) -> None:
    """Its delivery means nothing any more; what is held beside it goes on."""
    held = await bench.held("r1")
    beside = await bench.held("r2")
    await occupy(bench, bench.lane.run("r1"))

    found = await deliveries.holdings(bench.store, bench.lane, "w1", [held, beside])
    assert found.lost == {"r1"}
    reply = await bench.commit(
        "w1",
        commits.journal(held, [("a", b"1")], "1"),
        ending(held, Completed(b"1")),
        commits.journal(beside, [("a", b"1")], "1"),
    )
    assert reply.verdicts == (Verdict.FENCED, Verdict.FENCED, Verdict.WRITTEN)

    assert await bench.adopt("w1", held.level, held.entry) == (Verdict.WRITTEN, [])
    assert [entry for _, entry, _ in await bench.pending()] == [beside.entry]


async def test_what_waits_beside_a_foreign_record_is_taken(bench: Bench) -> None:
    """One key must not stand in the way of a whole lane."""
    await bench.accept("r1", "r2")
    await occupy(bench, bench.lane.run("r1"))

    reply = await bench.commit("w1", want=WANT)

    assert [held.run_id for held in reply.taken] == ["r2"]
    assert [run_id for _, run_id in await bench.waiting()] == ["r2"]


async def test_a_delivery_with_a_foreign_record_is_thrown_away(bench: Bench) -> None:
    await bench.accept("r1")
    (stray,) = await bench.read("w1")
    await occupy(bench, bench.lane.run("r1"))

    item = commits.hand_back(stray.level, stray.entry, RETENTION_S)

    assert await bench.verdict("w1", item) is Verdict.WRITTEN
    assert await bench.waiting() == []


async def test_a_run_whose_journal_is_foreign_does_not_pass_for_a_new_one(bench: Bench) -> None:
    """Begun again without its records, it would do everything again."""
    held = await bench.held("r1")
    await bench.verdict("w1", commits.journal(held, [("a", b"1")], "1"))
    await bench.end(held, Released())
    await occupy(bench, bench.lane.journal("r1"))

    (held,) = await bench.take("w2")

    assert held.records > 0
    with pytest.raises(KeyOccupied, match="journal of run 'r1'"):
        await journals.load(bench.store, bench.lane, "r1")


async def test_an_attempt_ends_although_its_journal_is_foreign(bench: Bench) -> None:
    """What escaped cannot be dropped from there; the next attempt finds out."""
    held = await bench.held("r1")
    await occupy(bench, bench.lane.journal("r1"))

    assert await bench.end(held, Retry(1.0, "E", "m", ("a",))) is Verdict.WRITTEN
    assert await bench.state("r1") is RunState.SCHEDULED


async def test_runs_are_accepted_beside_a_foreign_key(bench: Bench) -> None:
    """The caller of the one is told; the others are accepted, once."""
    await occupy(bench, bench.lane.run("r2"))

    assert await bench.accept("r1", "r2", "r3") == [True, runs.OCCUPIED, True]
    assert await bench.accept("r1", "r2", "r3") == [False, runs.OCCUPIED, False]

    news = [NewRun(id=name, workflow="flow", arguments=b"{}") for name in ("r1", "r2")]
    assert await runs.owners(bench.store, bench.lane, news) == [False, None]


async def test_what_is_asked_of_many_runs_is_answered_for_the_others(bench: Bench) -> None:
    """Cancel, watch, list: each of them asks for a page at once."""
    await bench.accept("r1", "r2")
    await occupy(bench, bench.lane.run("r1"))
    lane, store = bench.lane, bench.store

    assert set(await runs.statuses(store, lane, ["r1", "r2"])) == {"r2"}
    assert await runs.arguments(store, lane, "r1") is None
    listed = await listing.list_runs(store, lane, frozenset(RunState), 10)
    assert [status.id for status in listed] == ["r2"]
    assert await results.watch(store, lane, "me", ["r1", "r2"]) == [
        results.Unknown(), results.Pending(),
    ]  # fmt: skip
    assert await bench.revive("r1", "r2") == ["", "queued"]
    assert await bench.cancel("r1", "r2") == ["", "cancelled"]
    assert await losses.restore(store, lane, ["r1", "r2"], LEASE_S, RETENTION_S) == 0
    pruned = await losses.prune(store, lane, "normal", BEGINNING, 100)
    assert pruned.dropped == 2


async def test_a_holder_is_cancelled_although_it_cannot_be_told(bench: Bench) -> None:
    """The mark stands in the record, and the next commit finds it."""
    held = await bench.held("r1")
    await occupy(bench, f"{bench.lane.prefix}control:w1")

    assert await bench.cancel("r1") == ["cancelling"]
    assert (await bench.sweep("w1")).cancelled == ()
    item = commits.journal(held, [("a", b"1")], "1")
    assert await bench.verdict("w1", item) is Verdict.CANCEL


async def test_a_lane_is_swept_past_foreign_keys(bench: Bench) -> None:
    """Timers, waits and the runs of the dead: one in each is foreign, and one is sound."""
    for name in ("timer", "timer-foreign"):
        await bench.accept(name, delay_s=100)
    await bench.renew("dead")
    for name in ("held-foreign", "held", "journal-foreign"):
        held = await bench.held(name, token="dead")
        await bench.verdict("dead", commits.journal(held, [("a", b"1")], "1"))
    await bench.cancel("held-foreign")
    await occupy(bench, bench.lane.run("timer-foreign"))
    await occupy(bench, bench.lane.run("held-foreign"))
    await occupy(bench, bench.lane.journal("journal-foreign"))

    assert (await bench.sweep("dead")).cancelled == ()
    await bench.fall_due("timer", "timer-foreign")
    await bench.lapse("dead")
    found = await bench.sweep()

    assert (found.promoted, found.reclaimed) == (1, 2)
    assert {run_id for _, run_id in await bench.waiting()} == {"timer", "held", "journal-foreign"}
    assert await bench.redis.zcard(bench.lane.timers) == 0
    assert await bench.pending() == []


async def test_what_a_run_receives_may_be_foreign_and_costs_that_run(bench: Bench) -> None:
    """Signals, waits and children of the one are refused; those of the other go their way."""
    held, beside = await bench.held("r1"), await bench.held("r2")
    assert await send(bench, "r1", "r2") == ["kept", "kept"]
    await occupy(bench, bench.lane.received("r1"))

    assert await send(bench, "r1", "r2", id="2") == ["occupied", "kept"]
    child = commits.Child("c1", "default", b"{}")
    reply = await bench.commit(
        "w1",
        commits.look(held, "k", GO, PARTS, WAITING, "1"),
        commits.start_child(held, "c", WAITING, child, "1"),
        commits.entrust(held, "t", WAITING, b'["them","t","c"]', "1"),
        commits.look(beside, "k", GO, PARTS, WAITING, "1"),
    )
    assert reply.verdicts == (*[Verdict.OCCUPIED] * 3, Verdict.ANSWERED)
    with pytest.raises(KeyOccupied, match="mailbox of run 'r1'"):
        await messages.standing(bench.store, bench.lane, "r1")
    assert "bytes" not in await bench.fields("r1")

    assert await bench.end(held, Parked(None, 0.0, 0, (GO,))) is Verdict.WRITTEN
    assert await bench.end(beside, Parked(None, 0.0, 0, (GO,))) is Verdict.WRITTEN
    assert await bench.state("r2") is RunState.QUEUED
    assert await bench.cancel("r1", "r2") == ["cancelled", "cancelled"]


async def test_messages_go_past_a_foreign_record(bench: Bench) -> None:
    """Ends of children come by the page: the page would be sent for ever."""
    await bench.accept("r1", "r2")
    await occupy(bench, bench.lane.run("r1"))

    assert await send(bench, "r1", "r2") == ["", "kept"]


async def test_a_child_whose_id_is_foreign_fails_for_its_parent(bench: Bench) -> None:
    """It cannot be started, and its parent must not wait for it."""
    held = await bench.held("r1")
    start = outbox.encoded(outbox.Start(workflow="flow", arguments=msgspec.Raw(b"{}"), attempt=1))
    child = commits.Child("c1", "default", start)
    await bench.verdict("w1", commits.start_child(held, "c", WAITING, child, "1"))
    await occupy(bench, bench.lane.run("c1"))

    while await outbox.dispatch(bench.store, bench.lane, RETENTION_S):
        pass

    standing = await messages.standing(bench.store, bench.lane, "r1")
    assert standing.names == {"c:c1"}
    assert await bench.redis.xlen(bench.lane.outbox) == 0


@pytest.mark.parametrize("when", ["before the end", "after it"])
async def test_a_run_whose_notes_are_foreign_ends_and_nobody_is_told(
    bench: Bench, when: str
) -> None:
    """Who does something for it is lost; what the lane has to say of others is not."""
    held = await bench.held("r1")
    item = commits.entrust(held, "t", WAITING, b'["them","t","c"]', "1")
    assert await bench.verdict("w1", item) is Verdict.WRITTEN
    box = bench.lane.received("r1")
    if when == "before the end":
        await bench.redis.delete(box)
        await occupy(bench, box)
    assert await bench.end(held, Failed("E", "m")) is Verdict.WRITTEN
    if when == "after it":
        await bench.redis.delete(box)
        await occupy(bench, box)
    await outbox.dispatch(bench.store, bench.lane, RETENTION_S)
    assert await bench.redis.xlen(bench.lane.outbox) == 0
    assert await withdrawals.claim(bench.store, "default", 60) == []


@pytest.mark.parametrize("strange", [b"not yours", b'["r1"]', b"\xff"])
async def test_what_is_no_note_of_ours_holds_up_no_other(bench: Bench, strange: bytes) -> None:
    """Neither beside a run, where it would stay in the outbox, nor where every worker looks."""
    held = await bench.held("r1")
    task = withdrawals.Task("them", "t1", "c1")
    for step, noted in (("a", strange), ("b", withdrawals.noted(task))):
        await bench.verdict("w1", commits.entrust(held, step, WAITING, noted, "1"))
    await bench.end(held, Cancelled())
    await outbox.dispatch(bench.store, bench.lane, RETENTION_S)
    assert await bench.redis.xlen(bench.lane.outbox) == 0
    (due,) = [key async for key in bench.redis.scan_iter(match="*{withdrawals}*:due")]
    await bench.redis.zadd(due, {strange: 0})
    found = await withdrawals.claim(bench.store, "default", 60)
    assert found == [withdrawals.Withdrawal("r1", task)]


@pytest.mark.parametrize("part", ["run", "journal", "spilled"])
async def test_a_fork_under_a_foreign_key_is_refused_whole(bench: Bench, part: str) -> None:
    key = getattr(bench.lane, part)("r1")
    await occupy(bench, key)
    begun = forks.Source(
        workflow="flow", arguments=b"{}", version="", priority=Priority.NORMAL, tenant="",
        attributes="", timeout_ms="", records={"a": b"1"},
    )  # fmt: skip
    before = await bench.keys()

    assert await forks.fork(bench.store, bench.lane, 0, "r1", "r0\na", begun) == runs.OCCUPIED
    assert await bench.keys() == before


async def send(bench: Bench, *ids: str, id: str = "1") -> list[str]:
    """Send a signal to each of these runs."""
    sent = [messages.Message(run_id=x, name=GO, payload=b"1", id=id) for x in ids]
    return await messages.send(bench.store, bench.lane, sent, RETENTION_S)


async def test_another_refusal_still_ends_the_script(bench: Bench) -> None:
    """Only a key of another type is passed over: a full memory must not look like one."""
    if bench.store.in_memory:
        pytest.skip("the in-memory store is never full")
    held = await bench.held("r1")
    await bench.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreError, match="maxmemory"):
            await bench.commit("w1", commits.journal(held, [("a", b"1")], "1"))
    finally:
        await bench.redis.config_set("maxmemory", 0)
    assert await bench.journal("r1") == {}
