"""depth.lua, listing and agents: what an operator sees is what is, and looking costs little."""

from __future__ import annotations

import pytest

from millstream.model.outcome import Completed, Failed, Refused, Released
from millstream.model.run import Priority, RunState, RunStatus
from millstream.store import agents, listing, runs
from millstream.store.agents import Agent
from millstream.store.keys import Lane
from tests.store.bench import LONG_S, Bench
from tests.store.states import put


async def counts(bench: Bench) -> tuple[int, int, int, int, int, int]:
    depth = await runs.depth(bench.store, bench.lane)
    return (
        depth.waiting, depth.running, depth.scheduled, depth.due, depth.parked, depth.dead,
    )  # fmt: skip


async def test_the_depth_of_nothing_is_nothing(bench: Bench) -> None:
    """Also where no stream, no group and no worker exists."""
    fresh = Bench(bench.store, Lane("fresh"))

    assert await counts(fresh) == (0, 0, 0, 0, 0, 0)
    depth = await runs.depth(bench.store, fresh.lane)
    assert (depth.oldest_s, depth.workers) == (0.0, 0)


async def test_runs_are_counted_before_the_first_worker_comes(bench: Bench) -> None:
    """That figure starts the first worker where the fleet is scaled to zero."""
    fresh = Bench(bench.store, Lane("fresh"))
    await fresh.accept("r1", "r2")

    assert await counts(fresh) == (2, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (RunState.SCHEDULED, (0, 0, 1, 0, 0, 0)),
        (RunState.QUEUED, (1, 0, 0, 0, 0, 0)),
        (RunState.RUNNING, (0, 1, 0, 0, 0, 0)),
        (RunState.PARKED, (0, 0, 0, 0, 1, 0)),
        (RunState.COMPLETED, (0, 0, 0, 0, 0, 0)),
        (RunState.FAILED, (0, 0, 0, 0, 0, 1)),
        (RunState.CANCELLED, (0, 0, 0, 0, 0, 0)),
    ],
)
async def test_a_run_is_counted_in_its_state(
    bench: Bench, state: RunState, expected: tuple[int, ...]
) -> None:
    """The fleet is scaled by these figures."""
    await put(bench, state)

    assert await counts(bench) == expected


async def test_the_depth_adds_up_over_all_levels(bench: Bench) -> None:
    """Waiting and running are told apart in every stream."""
    for priority in Priority:
        await bench.accept(*(f"{priority}{number}" for number in range(4)), priority=priority)
    held = await bench.take("w1", 5)
    await bench.end(held[0], Released())
    await bench.end(held[1], Completed(b"1"))

    assert await counts(bench) == (8, 3, 0, 0, 0, 0)


async def test_what_is_due_is_demand_already(bench: Bench) -> None:
    """Its time has come; a worker is needed to promote it."""
    await put(bench, RunState.SCHEDULED, "r1")
    await put(bench, RunState.PARKED, "r2")
    await bench.accept("r3", delay_s=LONG_S)
    await bench.fall_due("r1", "r2")

    assert await counts(bench) == (0, 0, 2, 2, 1, 0)


async def test_the_age_is_that_of_the_oldest_run_that_nobody_holds(bench: Bench) -> None:
    """What is being worked on does not wait, however long it takes."""
    now = await bench.now_ms()
    for age_s, run_id in ((500, "taken"), (300, "old"), (100, "new")):
        await bench.accept(run_id, delay_s=LONG_S)
        entry = f"{now - age_s * 1000}-0"
        await bench.redis.xadd(bench.lane.stream("normal"), {"id": run_id}, id=entry)
        await bench.redis.hset(bench.lane.run(run_id), mapping={"state": "queued", "entry": entry})
    assert len(await bench.take("w1")) == 1

    depth = await runs.depth(bench.store, bench.lane)

    assert 300 <= depth.oldest_s < 400


async def test_workers_are_counted_while_their_lease_holds(bench: Bench) -> None:
    """The dead do not work."""
    await bench.renew("w1", "w2")
    await bench.lapse("w2")

    assert (await runs.depth(bench.store, bench.lane)).workers == 1


async def test_the_cancelled_entry_counts_until_it_is_thrown_away(bench: Bench) -> None:
    """It is marked, not deleted; whoever takes it throws it away, and the figure is right."""
    await bench.accept("r1", "r2")
    await bench.cancel("r1")
    assert (await counts(bench))[0] == 2

    await bench.take("w1", 2)

    assert await counts(bench) == (0, 1, 0, 0, 0, 0)


async def test_runs_are_listed_by_state(bench: Bench) -> None:
    """Every state has its source, and each finds its own runs only."""
    # What waits would be taken by the next.
    for state in sorted(RunState, key=lambda state: state is RunState.QUEUED):
        await put(bench, state, f"{state}-1")

    for state in RunState:
        found = await listed(bench, state)
        assert [(status.id, status.state) for status in found] == [(f"{state}-1", state)]
    everything = await listed(bench, *RunState)
    assert {status.id for status in everything} == {f"{state}-1" for state in RunState}


async def listed(bench: Bench, *states: RunState, limit: int = 100) -> list[RunStatus]:
    return await listing.list_runs(bench.store, bench.lane, frozenset(states), limit)


async def test_a_long_list_is_read_in_pages_and_cut_at_its_limit(bench: Bench) -> None:
    """Every run once, the newest of a source first."""
    ids = [f"r{number:03}" for number in range(450)]
    await bench.accept(*ids)

    found = await listed(bench, RunState.QUEUED, limit=1_000)
    assert [status.id for status in found] == ids[::-1]
    assert [s.id for s in await listed(bench, RunState.QUEUED, limit=3)] == ids[:-4:-1]

    await bench.take("w1", 450)
    running = await listed(bench, RunState.RUNNING, limit=1_000)
    assert {status.id for status in running} == set(ids)
    assert len(running) == 450


async def test_a_list_can_be_narrowed(bench: Bench) -> None:
    """By anything that a status says."""
    await bench.accept("r1", "r2", tenant="acme")
    await bench.accept("r3")

    found = await listing.list_runs(
        bench.store, bench.lane, frozenset({RunState.QUEUED}), 9, lambda s: s.tenant == "acme"
    )

    assert {status.id for status in found} == {"r1", "r2"}


async def test_an_entry_deleted_by_hand_makes_no_other_run_appear(bench: Bench) -> None:
    """The next entry of the stream is another run's, and may not even be taken."""
    await bench.accept("r1", "r2", "r3")
    first, _ = await bench.take("w1", 2)
    await bench.redis.xdel(bench.lane.stream("normal"), first.entry)

    assert [status.id for status in await listed(bench, RunState.RUNNING)] == ["r2"]


async def test_a_queue_without_workers_can_be_listed(bench: Bench) -> None:
    """Nobody has made a group yet."""
    fresh = Bench(bench.store, Lane("fresh"))
    await fresh.accept("r1")

    assert [status.id for status in await listed(fresh, *RunState)] == ["r1"]


async def test_the_dead_letters_are_listed_newest_first(bench: Bench) -> None:
    """Those of yesterday are behind those of now; those that expired are left out."""
    for number in range(5):
        held = await bench.held(f"r{number}")
        await bench.end(held, Failed("E", "m"))
        await bench.redis.zadd(bench.lane.dead, {f"r{number}": number + 1})
    await bench.expire("r3")

    found = await listing.dead_letters(bench.store, bench.lane, 3)

    assert [status.id for status in found] == ["r4", "r2", "r1"]


async def test_an_agent_is_known_while_its_lease_holds(bench: Bench) -> None:
    """Whether anybody knows a workflow is asked of the living."""
    agent = Agent(
        token="w1", host="box", pid=1, concurrency=4, started=1.5, workflows=("flow@1",),
        release="0.1.0",
    )  # fmt: skip
    await agents.register(bench.store, bench.lane, agent)
    assert await agents.living(bench.store, bench.lane) == []

    await bench.renew("w1", "w2")
    assert await agents.living(bench.store, bench.lane) == [agent]

    await bench.lapse("w1")
    assert await agents.living(bench.store, bench.lane) == []


async def test_a_run_that_workers_hand_back_says_why_it_waits(bench: Bench) -> None:
    """Until somebody has taken it who can: then nothing is held against it any more."""

    async def waits_for() -> str | None:
        status = await runs.status(bench.store, bench.lane, "r1")
        assert status is not None
        return status.waits_for

    held = await bench.held("r1", version="2")
    assert await waits_for() is None
    await bench.end(held, Refused(0))
    reason = "no worker that took it can run workflow flow version 2"
    assert await waits_for() == f"{reason}; refused once"
    for _ in range(2):
        await bench.fall_due("r1")
        await bench.sweep()
        (held,) = await bench.take("w1")
        await bench.end(held, Refused(0))
    assert str(await waits_for()).endswith("refused 3 times")

    await bench.fall_due("r1")
    await bench.sweep()
    assert await waits_for() is not None, "queued, and nobody can"
    (held,) = await bench.take("w2")
    assert await waits_for() is None
    await bench.end(held, Released())
    assert await waits_for() is None
