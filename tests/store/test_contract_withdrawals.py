"""What another agent does for a step is noted, and withdrawn when the run ends before."""

from __future__ import annotations

import pytest

from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.outcome import Cancelled, Completed, Failed, Outcome, Parked, Retry
from millstream.model.run import Delivery
from millstream.store import codec, commits, outbox, withdrawals
from millstream.store.commits import Verdict
from millstream.store.withdrawals import Task, Withdrawal
from tests.store.bench import RETENTION_S, Bench

pytestmark = pytest.mark.anyio

DATA = codec.encode_record(Record(StepKind.AGENT, "them", "", RecordStatus.WAITING, {}), 1000)
TASK = Task("them", "t1", "c1")
LEFT = Withdrawal("r1", TASK)


async def entrust(
    bench: Bench, held: Delivery, task: Task | None = TASK, step: str = "k", token: str = "w1"
) -> Verdict:
    """Note a task, or that there is none any more."""
    noted = b"" if task is None else withdrawals.noted(task)
    return await bench.verdict(token, commits.entrust(held, step, DATA, noted, "1"))


async def due(bench: Bench) -> list[Withdrawal]:
    """Deliver what the lane has to say; return what somebody is to be told."""
    await outbox.dispatch(bench.store, bench.lane, RETENTION_S)
    assert await bench.redis.xlen(bench.lane.outbox) == 0
    return sorted(await withdrawals.claim(bench.store, "default", 60), key=str)


@pytest.mark.parametrize(
    "outcome", [Cancelled(), Failed("AgentTimeout", "m"), Completed(b"1")], ids=str
)
async def test_a_task_that_is_left_is_withdrawn_once(bench: Bench, outcome: Outcome) -> None:
    """However the run ends; and it may be noted, and delivered, twice."""
    held = await bench.held("r1")
    for _ in range(2):
        assert await entrust(bench, held) is Verdict.WRITTEN
    assert await entrust(bench, held, Task("them", "", "c2"), "l") is Verdict.WRITTEN
    await bench.end(held, outcome)
    entries = await bench.redis.xrange(bench.lane.outbox)
    assert await due(bench) == [Withdrawal("r1", Task("them", "", "c2")), LEFT]
    for _, fields in entries:
        await bench.redis.xadd(bench.lane.outbox, fields)
    assert await due(bench) == []


async def test_a_parked_run_that_is_cancelled_leaves_its_task(bench: Bench) -> None:
    """No worker holds it, and none is asked: its end stands at once."""
    held = await bench.held("r1")
    await entrust(bench, held)
    await bench.end(held, Parked(9e9, 0.0))
    assert await due(bench) == []
    assert await bench.cancel("r1") == ["cancelled"]
    assert await due(bench) == [LEFT]


async def test_nothing_is_said_of_a_task_that_has_ended(bench: Bench) -> None:
    """The record of the answer takes the note away, whatever else the run received."""
    held = await bench.held("r1")
    await entrust(bench, held)
    await entrust(bench, held, None)
    await bench.end(held, Cancelled())
    assert await due(bench) == []
    assert await bench.redis.hgetall(bench.lane.received("r1")) == {}


async def test_who_does_not_hold_the_run_says_nothing(bench: Bench) -> None:
    """An attempt that lost its lease neither notes a task nor takes a note away."""
    held = await bench.held("r1")
    await entrust(bench, held)
    assert await entrust(bench, held, Task("them", "t9", "c9"), token="thief") is Verdict.FENCED
    assert await entrust(bench, held, None, token="thief") is Verdict.FENCED
    await bench.lapse("w1")
    await bench.renew("w1", lease_s=0)
    await bench.sweep()
    assert await entrust(bench, held, None) is Verdict.FENCED
    assert await bench.end(held, Cancelled()) is Verdict.FENCED
    assert await due(bench) == []
    (again,) = await bench.take("w2")
    await bench.end(again, Cancelled(), "w2")
    assert await due(bench) == [LEFT]


async def test_a_run_that_goes_on_keeps_its_task(bench: Bench) -> None:
    """Neither another attempt nor an operator's retry leaves it, however late the entry is."""
    held = await bench.held("r1")
    await entrust(bench, held)
    await bench.end(held, Retry(0.0, "E", "m"))
    assert await due(bench) == []
    await bench.sweep()
    (again,) = await bench.take("w1")
    await bench.end(again, Failed("E", "m"))
    await bench.revive("r1")
    assert await due(bench) == []


async def test_what_is_tried_in_vain_is_tried_again(bench: Bench) -> None:
    """Later; and what is finished is counted afresh."""
    await withdrawals.put(bench.store, "default", [LEFT])
    assert await withdrawals.claim(bench.store, "other", 60) == []
    assert await withdrawals.claim(bench.store, "default", 60) == [LEFT]
    assert [await withdrawals.tried(bench.store, "default", LEFT) for _ in range(2)] == [1, 2]
    await withdrawals.postpone(bench.store, "default", LEFT, -1)
    await withdrawals.put(bench.store, "default", [LEFT])
    assert await withdrawals.claim(bench.store, "default", 60) == [LEFT]
    await withdrawals.finish(bench.store, "default", LEFT)
    await withdrawals.postpone(bench.store, "default", LEFT, -1)
    assert await withdrawals.claim(bench.store, "default", 60) == []
    assert await withdrawals.tried(bench.store, "default", LEFT) == 1
