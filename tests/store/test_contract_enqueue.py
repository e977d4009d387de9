"""enqueue.lua: what is accepted is kept, once; what is not accepted leaves no trace."""

from __future__ import annotations

import pytest

from millstream.errors import StoreError
from millstream.model.outcome import Completed
from millstream.model.run import Priority, RunState
from millstream.store import runs
from millstream.store.keys import Lane
from millstream.store.layouts import Layout, layout
from millstream.store.runs import NewRun, Resized
from millstream.store.scripts import call
from tests.store.bench import LONG_S, Bench
from tests.store.states import put


async def test_a_new_run_is_written_whole_and_waits_in_its_stream(bench: Bench) -> None:
    """Everything a worker needs stands in the record; the stream only names the run."""
    new = NewRun(
        id="r1", workflow="flow", arguments=b'{"a":1}', version="3", timeout_s=2.5,
        tenant="acme", trace="00-aa-bb-01",
    )  # fmt: skip
    before = await bench.now_ms()

    assert await runs.enqueue(bench.store, bench.lane, 0, [new]) == [True]

    fields = await bench.fields("r1")
    assert before <= int(fields.pop("enqueued")) <= await bench.now_ms()
    ((entry, _),) = await bench.redis.xrange(bench.lane.stream("normal"))
    assert fields.pop("entry") == entry.decode()
    assert fields == {
        "state": "queued", "workflow": "flow", "args": '{"a":1}', "version": "3",
        "timeout": "2500", "tenant": "acme", "trace": "00-aa-bb-01",
    }  # fmt: skip
    assert await bench.waiting() == [("normal", "r1")]


@pytest.mark.parametrize("priority", Priority)
async def test_each_priority_has_a_stream_of_its_own(bench: Bench, priority: Priority) -> None:
    """Urgent work must not stand behind what is not."""
    await bench.accept("r1", priority=priority)

    assert await bench.waiting() == [(priority, "r1")]


async def test_a_delayed_run_waits_among_the_timers(bench: Bench) -> None:
    """A worker must not see it before its time."""
    before = await bench.now_ms()
    await bench.accept("r1", delay_s=LONG_S, priority=Priority.HIGH)

    assert await bench.state("r1") is RunState.SCHEDULED
    assert await bench.waiting() == []
    due = await bench.redis.zscore(bench.lane.timers, "r1")
    assert before + 1_000_000 <= due <= await bench.now_ms() + 1_000_000


async def test_what_was_accepted_can_be_looked_at(bench: Bench) -> None:
    """The status of a run is what a client and an operator see of it."""
    await bench.accept("r1", arguments=b'{"a":[1]}', tenant="acme", delay_s=LONG_S)

    status = await runs.status(bench.store, bench.lane, "r1")

    assert status is not None
    assert (status.id, status.queue, status.workflow) == ("r1", "default", "flow")
    assert (status.state, status.attempt, status.crashes) == (RunState.SCHEDULED, 1, 0)
    assert (status.version, status.error, status.tenant) == (None, None, "acme")
    assert status.times.due is not None
    assert status.times.due > status.times.enqueued
    assert await runs.arguments(bench.store, bench.lane, "r1") == {"a": [1]}
    assert await runs.status(bench.store, bench.lane, "other") is None
    assert await runs.arguments(bench.store, bench.lane, "other") is None


async def test_the_same_run_sent_twice_is_one_run(bench: Bench) -> None:
    """After a lost reply the client sends again: nothing may change, nothing may run twice."""
    await bench.accept("r1")
    before = await bench.snapshot()

    assert await bench.accept("r1") == [False]

    assert await bench.snapshot() == before


@pytest.mark.parametrize("other", [{"workflow": "else"}, {"arguments": b'{"b":2}'}])
async def test_an_id_that_belongs_to_another_run_is_refused(
    bench: Bench, other: dict[str, object]
) -> None:
    """The caller learns whose it is; the run that has the id feels nothing."""
    await bench.accept("r1")
    before = await bench.snapshot()

    assert await bench.accept("r1", **other) == ["flow"]

    assert await bench.snapshot() == before


async def test_one_refused_run_never_spoils_the_others(bench: Bench) -> None:
    """Every run of a batch has its own answer, even one that stands in it twice."""
    await bench.accept("taken", workflow="else")
    batch = ["a", "taken", "b", "a"]

    assert await bench.accept(*batch) == [True, "else", True, False]

    assert await bench.waiting() == [("normal", "taken"), ("normal", "a"), ("normal", "b")]


@pytest.mark.parametrize("state", RunState)
async def test_an_id_is_recognised_in_whatever_state_its_run_is(
    bench: Bench, state: RunState
) -> None:
    """While the record is retained, the id stands for this run: also when it has ended."""
    await put(bench, state)
    before = await bench.snapshot()

    assert await bench.accept("r1") == [False]
    assert await bench.accept("r1", workflow="else") == ["flow"]

    assert await bench.snapshot() == before


async def test_an_id_is_free_again_when_its_record_has_expired(bench: Bench) -> None:
    """The new run inherits nothing: no fence, no journal, no attempts."""
    held = await bench.held("r1")
    await bench.end(held, Completed(b"1"))
    await bench.expire("r1")

    assert await bench.accept("r1", workflow="else") == [True]

    (again,) = await bench.take("w2")
    assert (again.workflow, again.fence, again.attempt, again.records) == ("else", 1, 1, 0)


async def test_an_old_epoch_is_refused_and_told_the_new_layout(bench: Bench) -> None:
    """A client that thinks of another number of lanes would put runs where nobody looks."""
    await bench.redis.hset(bench.lane.meta, mapping={"lanes": 4, "epoch": 2})
    before = await bench.snapshot()
    new = [NewRun(id="r1", workflow="flow", arguments=b"{}")]

    assert await runs.enqueue(bench.store, bench.lane, 0, new) == Resized(4, 2)
    assert await runs.enqueue(bench.store, bench.lane, 3, new) == Resized(4, 2)
    assert await bench.snapshot() == before

    assert await layout(bench.store, "default") == Layout(4, 2)
    assert await runs.enqueue(bench.store, bench.lane, 2, new) == [True]


async def test_a_queue_that_nobody_used_has_one_lane(bench: Bench) -> None:
    """The first enqueue into a queue needs no preparation: not even a worker."""
    lane = Lane("fresh")
    assert await layout(bench.store, "fresh") == Layout(1, 0)

    new = [NewRun(id="r1", workflow="flow", arguments=b"{}")]
    assert await runs.enqueue(bench.store, lane, 0, new) == [True]

    assert await Bench(bench.store, lane).waiting() == [("normal", "r1")]


async def test_what_came_before_the_first_worker_counts(bench: Bench) -> None:
    """A group that began at the end of its stream would never deliver it."""
    fresh = Bench(bench.store, Lane("fresh"))
    await fresh.accept("r1")

    await fresh.prepare()
    await fresh.prepare()

    assert [held.run_id for held in await fresh.take("w1")] == ["r1"]


async def test_a_full_batch_fits_into_one_call(bench: Bench) -> None:
    """The bound of a batch is a size that the script can take."""
    ids = [f"r{number}" for number in range(500)]

    assert await bench.accept(*ids) == [True] * 500

    assert [run_id for _, run_id in await bench.waiting()] == ids


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(["r2", "flow", "", "{}", "urgent", "", "", "", ""], id="unknown priority"),
        pytest.param(["r2", "flow", "", "{}", "normal", "soon", "", "", ""], id="delay no number"),
        pytest.param(["r2", "flow", "", "{}", "normal", "", "", ""], id="cut short"),
    ],
)
async def test_a_malformed_run_writes_nothing_at_all(bench: Bench, wrong: list[str]) -> None:
    """Lua does not roll back: a record whose entry could not be written would never run."""
    before = await bench.snapshot()
    right = ["r1", "flow", "", "{}", "normal", "", "", "", ""]

    with pytest.raises(StoreError), bench.store.translated():
        await call(bench.redis, "enqueue", bench.lane, ["0", *right, *wrong])

    assert await bench.snapshot() == before
