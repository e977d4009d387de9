"""Messages to runs: kept in order, taken once, and whoever waits is called up."""

from __future__ import annotations

import pytest

from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.limits import Limits
from millstream.model.outcome import Completed, Failed, Parked
from millstream.model.run import Delivery, RunState
from millstream.store import codec, commits, deliveries, messages
from millstream.store.commits import Item, Verdict
from millstream.store.messages import Message
from tests.store.bench import RETENTION_S, Bench

pytestmark = pytest.mark.anyio

GO = "s:go"
RECORD = Record(StepKind.SIGNAL, "go", "", RecordStatus.OK, began=1.0, by="w1")
WAITING = codec.encode_record(RECORD._replace(status=RecordStatus.WAITING), 1000)
PARTS = codec.record_parts(RECORD, RecordStatus.WAITING)


async def send(bench: Bench, *sent: tuple[str, str], limits: Limits | None = None) -> list[str]:
    """Send signals to `r1`: (payload, id) each."""
    found = [Message(run_id="r1", name=GO, payload=x.encode(), id=y) for x, y in sent]
    return await messages.send(bench.store, bench.lane, found, RETENTION_S, limits or Limits())


def look(held: Delivery, key: str = "k", name: str = GO, otherwise: bytes = WAITING) -> Item:
    return commits.look(held, key, name, PARTS, otherwise, "1")


async def value(bench: Bench, key: str = "k") -> object:
    record = await messages.taken(bench.store, bench.lane, "r1", key)
    return record.status, record.value


def parked(*awaits: str, heard: int = 0) -> Parked:
    return Parked(None, 0.0, heard, awaits)


async def test_signals_are_taken_in_the_order_in_which_they_came(bench: Bench) -> None:
    held = await bench.held()
    assert await send(bench, ('{"a":1}', "1"), ("[2]", "2")) == ["kept", "kept"]
    for key, wanted in (("k1", {"a": 1}), ("k2", [2])):
        assert await bench.verdict("w1", look(held, key)) is Verdict.ANSWERED
        assert await value(bench, key) == (RecordStatus.OK, wanted)
    assert await bench.verdict("w1", look(held, "k3")) is Verdict.WRITTEN
    assert await value(bench, "k3") == (RecordStatus.WAITING, None)


async def test_a_signal_that_is_sent_again_is_known(bench: Bench) -> None:
    """A lost reply is answered by sending again: also after the signal was taken."""
    held = await bench.held()
    assert await send(bench, ("1", "x")) == ["kept"]
    assert await send(bench, ("1", "x")) == ["known"]
    assert await bench.verdict("w1", look(held)) is Verdict.ANSWERED
    before = await bench.snapshot()
    assert await send(bench, ("1", "x")) == ["known"]
    assert await bench.snapshot() == before


async def test_the_oldest_ids_are_forgotten(bench: Bench) -> None:
    """What is remembered of a run that is signalled for years must not grow."""
    await bench.held()
    limits = Limits(message_ids=3)
    for number in range(7):
        await send(bench, ("1", str(number)), limits=limits)
    fields = await bench.redis.hkeys(bench.lane.received("r1"))
    assert sorted(x.decode() for x in fields if x[:1] == b"=") == ["=4", "=5", "=6"]
    assert sorted(x.decode() for x in fields if x[:1] == b"@") == ["@5", "@6", "@7"]


@pytest.mark.parametrize("limits", [Limits(messages=2), Limits(message_bytes=5)])
async def test_at_a_bound_nothing_is_written(bench: Bench, limits: Limits) -> None:
    held = await bench.held()
    assert await send(bench, ("11", "a"), ("22", "b"), limits=limits) == ["kept", "kept"]
    before = await bench.snapshot()
    assert await send(bench, ("33", "c"), limits=limits) == ["full"]
    assert await bench.snapshot() == before
    assert await bench.verdict("w1", look(held)) is Verdict.ANSWERED
    assert await send(bench, ("33", "c"), limits=limits) == ["kept"]


async def test_a_run_that_has_ended_or_never_was_receives_nothing(bench: Bench) -> None:
    assert await send(bench, ("1", "a")) == [""]
    held = await bench.held()
    await bench.end(held, Failed("E", "m"))
    before = await bench.snapshot()
    assert await send(bench, ("1", "a")) == ["failed"]
    assert await bench.snapshot() == before


async def test_a_parked_run_is_queued_by_what_it_awaits_and_by_nothing_else(bench: Bench) -> None:
    held = await bench.held()
    await bench.end(held, parked("s:go on", "s:other"))
    assert await send(bench, ("1", "a")) == ["kept"]
    assert await bench.state("r1") is RunState.PARKED
    assert await bench.waiting() == []
    other = Message(run_id="r1", name="s:other", payload=b"1", id="b")
    await messages.send(bench.store, bench.lane, [other], RETENTION_S)
    assert await bench.state("r1") is RunState.QUEUED
    assert await bench.waiting() == [("resume", "r1")]
    assert await bench.redis.zcard(bench.lane.parked) == 0
    (again,) = await bench.take("w2")
    assert again.received


async def test_a_park_that_crosses_a_signal_queues_the_run(bench: Bench) -> None:
    """The signal came while the run was on its way to be parked: nobody else will wake it."""
    held = await bench.held()
    await send(bench, ("1", "a"))
    assert await bench.end(held, parked(GO)) is Verdict.WRITTEN
    assert await bench.state("r1") is RunState.QUEUED


async def test_a_park_is_not_undone_by_what_the_run_knows_or_does_not_await(bench: Bench) -> None:
    """Else it would be taken, replayed and parked again for ever."""
    held = await bench.held()
    await send(bench, ("1", "a"))
    found = await messages.standing(bench.store, bench.lane, "r1")
    assert found == messages.Standing(1, frozenset({GO}))
    await bench.end(held, parked("s:other", heard=0))
    assert await bench.state("r1") is RunState.PARKED
    await bench.fall_due("r1")
    await bench.sweep()
    (again,) = await bench.take("w1")
    await bench.end(again, parked(GO, heard=found.heard))
    assert await bench.state("r1") is RunState.PARKED


async def test_a_look_that_is_sent_twice_takes_one_signal(bench: Bench) -> None:
    held = await bench.held()
    await send(bench, ("1", "a"), ("2", "b"))
    for _ in range(2):
        assert await bench.verdict("w1", look(held)) is Verdict.ANSWERED
    assert await value(bench) == (RecordStatus.OK, 1)
    found = await messages.standing(bench.store, bench.lane, "r1")
    assert found.names == {GO}


async def test_one_of_a_signal_and_a_timeout_is_recorded(bench: Bench) -> None:
    """Whichever script comes first decides, and the other one finds the record closed."""
    held = await bench.held()
    failure = RECORD._replace(status=RecordStatus.FAILED, value=["SignalTimeout", "", "late"])
    late = codec.encode_record(failure, 1000)
    assert await bench.verdict("w1", look(held)) is Verdict.WRITTEN
    assert await bench.verdict("w1", look(held, otherwise=late)) is Verdict.WRITTEN
    await send(bench, ("1", "a"))
    assert await bench.verdict("w1", look(held)) is Verdict.ANSWERED
    assert await value(bench) == (RecordStatus.FAILED, ["SignalTimeout", "", "late"])
    assert await bench.verdict("w1", look(held, "next", otherwise=late)) is Verdict.ANSWERED
    assert await value(bench, "next") == (RecordStatus.OK, 1)


async def test_only_the_holder_takes_a_signal(bench: Bench) -> None:
    held = await bench.held()
    await send(bench, ("1", "a"))
    before = await bench.snapshot()
    assert await bench.verdict("thief", look(held)) is Verdict.FENCED
    assert await bench.verdict("w1", look(held._replace(fence=7))) is Verdict.FENCED
    assert await bench.snapshot() == before


async def test_a_full_journal_leaves_the_signal_where_it_is(bench: Bench) -> None:
    held = await bench.held()
    await send(bench, ("1", "a"))
    item = look(held)
    assert await bench.verdict("w1", item, Limits(journal_bytes=20)) is Verdict.FULL
    assert await bench.verdict("w1", item) is Verdict.ANSWERED


async def test_the_holder_is_told_by_the_next_sweep_and_by_its_account(bench: Bench) -> None:
    held = await bench.held()
    await send(bench, ("1", "a"))
    assert (await bench.sweep("w1")).addressed == ("r1",)
    assert (await bench.sweep("w1")).addressed == ()
    account = await deliveries.holdings(bench.store, bench.lane, "w1", [held])
    assert account.addressed == {"r1"}


async def test_what_was_received_goes_with_the_run_and_comes_back_with_it(bench: Bench) -> None:
    held = await bench.held()
    await send(bench, ("1", "a"))
    await bench.end(held, Failed("E", "m"))
    key = bench.lane.received("r1")
    assert await bench.redis.pttl(key) > 0
    await bench.revive("r1")
    assert await bench.redis.pttl(key) == -1
    (again,) = await bench.take("w1")
    assert await bench.verdict("w1", look(again)) is Verdict.ANSWERED
    await bench.end(again, Completed(b"1"))
    assert await bench.redis.pttl(key) > 0


async def test_a_run_that_awaits_no_time_is_never_due(bench: Bench) -> None:
    held = await bench.held()
    await bench.end(held, parked(GO))
    swept = await bench.sweep()
    assert swept.promoted == 0
    assert swept.next_due is not None
    assert swept.next_due > await bench.now_ms() / 1000 + 1e9
