"""A lane that no worker serves is looked after all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from millstream.events import LaneCleaned, LaneSwept, StoreFailed, StoreRecovered
from millstream.model.run import RunState
from millstream.store.connection import Connection
from millstream.store.keys import LEVELS, Lane
from millstream_scheduler import janitor as janitors
from millstream_scheduler.janitor import Janitor
from millstream_scheduler.term import Term
from tests.scheduler.replicas import Transcript, replicas
from tests.scheduler.test_losses import lose_entries
from tests.store.bench import RETENTION_S, Bench, Send

LEASE_S = 0.6


def trusted(fence: int = 1) -> Term:
    term = Term(fence, anyio.current_time)
    term.trust(anyio.current_time() + 600)
    return term


def janitor(bench: Bench, term: Term, told: Transcript, token: str, lease_s: float) -> Janitor:
    return Janitor(
        bench.store, bench.lane, term, token, lease_s=lease_s, retention_s=RETENTION_S, poison=3,
        emit=told, mono=anyio.current_time,
    )  # fmt: skip


@asynccontextmanager
async def looked_after(
    bench: Bench, *terms: Term, lease_s: float = LEASE_S
) -> AsyncIterator[Transcript]:
    """Have one janitor a term look after the lane."""
    told = Transcript()
    async with anyio.create_task_group() as group:
        for number, term in enumerate(terms):
            made = janitor(bench, term, told, f"s{number}", lease_s)
            group.start_soon(made.sweep_forever)
            group.start_soon(made.clean_forever)
        yield told
        group.cancel_scope.cancel()


def total(told: Transcript, kind: type[Any], name: str) -> int:
    return sum(getattr(event, name) for event in told.of(kind))


async def test_a_delayed_run_is_promoted_when_its_time_comes(bench: Bench) -> None:
    """Not before, and soon after."""
    await bench.accept("r1", delay_s=0.2)
    began = anyio.current_time()
    async with looked_after(bench, trusted()) as told:
        await told.until(lambda: total(told, LaneSwept, "promoted"))

    assert 0.19 < anyio.current_time() - began < 0.2 + 0.5
    assert await bench.waiting() == [("normal", "r1")]


async def test_what_a_dead_worker_held_is_queued_again(bench: Bench) -> None:
    await bench.renew("w1")
    await bench.held("r1")
    await bench.lapse("w1")
    async with looked_after(bench, trusted()) as told:
        await told.until(lambda: total(told, LaneSwept, "reclaimed"))

    assert await bench.waiting() == [("resume", "r1")]
    assert "w1" not in await bench.consumers()


async def test_a_worker_that_lost_its_lease_entry_is_not_forgotten(bench: Bench) -> None:
    """A failover forgot its lease, and it died: its runs are found by its deliveries."""
    await bench.held("r1")
    await bench.accept("r2")
    await bench.read("w1")
    assert await bench.redis.zcard(bench.lane.leases) == 0
    async with looked_after(bench, trusted()) as told:
        await told.until(lambda: total(told, LaneSwept, "reclaimed") == 2)

    assert await bench.pending() == []
    assert sorted(run_id for _, run_id in await bench.waiting()) == ["r1", "r2"]


async def test_a_lane_that_no_worker_ever_served_is_looked_after(store: Connection) -> None:
    """There are no streams and no group yet, and still its timers run."""
    bench = Bench(store, Lane("new"))
    await bench.accept("r1", delay_s=0.05)
    # It died between its first renewal and the making of the group.
    await bench.renew("w1")
    await bench.lapse("w1")
    async with looked_after(bench, trusted()) as told:
        await told.until(lambda: total(told, LaneSwept, "promoted"))

    assert told.of(StoreFailed) == []
    assert await bench.waiting() == [("normal", "r1")]


async def test_a_lane_whose_streams_vanish_is_made_whole(bench: Bench) -> None:
    """Somebody deleted them; leases are left that a sweep stumbles over."""
    await bench.accept("r1")
    async with looked_after(bench, trusted()) as told:
        await bench.accept("r2", delay_s=0.01)
        await told.until(lambda: total(told, LaneSwept, "promoted") == 1)
        await bench.redis.delete(*(bench.lane.stream(level) for level in LEVELS))
        await bench.renew("w1")
        await bench.lapse("w1")
        await told.until(lambda: told.of(StoreFailed) and told.of(StoreRecovered))
        await told.until(lambda: total(told, LaneCleaned, "restored") == 2)

    assert sorted(await bench.waiting()) == [("resume", "r1"), ("resume", "r2")]
    assert len(told.of(StoreFailed)) == len(told.of(StoreRecovered))


async def test_losses_are_mended(bench: Bench) -> None:
    """A run without an entry, and an entry without a run."""
    await bench.accept("lost")
    await lose_entries(bench)
    await bench.accept("gone", "sound")
    await bench.cancel("gone")
    await bench.expire("gone")
    async with looked_after(bench, trusted()) as told:
        await told.until(
            lambda: total(told, LaneCleaned, "restored") and total(told, LaneCleaned, "dropped")
        )

    assert await bench.waiting() == [("resume", "lost"), ("normal", "sound")]


async def test_a_long_walk_gets_to_its_end(bench: Bench, monkeypatch: Any) -> None:
    """A page at a time: what is sound at the beginning hides nothing behind it."""
    monkeypatch.setattr(janitors, "_ENTRIES", 3)
    monkeypatch.setattr(janitors, "_KEYS", 5)
    await bench.accept(*(f"lost{n}" for n in range(20)))
    await lose_entries(bench)
    await bench.accept(*(f"sound{n}" for n in range(20)), "ended")
    await bench.cancel("ended")
    async with looked_after(bench, trusted(), lease_s=0.06) as told:
        await told.until(
            lambda: (
                total(told, LaneCleaned, "restored") == 20
                and total(told, LaneCleaned, "dropped") == 1
            )
        )

    assert len(await bench.waiting()) == 40


async def test_two_that_lead_at_once_do_no_harm(bench: Bench) -> None:
    """A frozen leader wakes while its successor works: everything still happens once."""
    await bench.renew("w1", "w2")
    await bench.accept(*(f"lost{n}" for n in range(20)))
    await lose_entries(bench)
    await bench.accept(*(f"held{n}" for n in range(10)))
    assert len(await bench.take("w1", 10)) == 10
    await bench.accept(*(f"alive{n}" for n in range(10)))
    assert len(await bench.take("w2", 10)) == 10
    await bench.accept(*(f"ended{n}" for n in range(15)))
    await bench.cancel(*(f"ended{n}" for n in range(15)))
    await bench.accept(*(f"due{n}" for n in range(30)), delay_s=0.05)
    await bench.lapse("w1")

    async with looked_after(bench, trusted(1), trusted(2)) as told:
        await told.until(
            lambda: (
                total(told, LaneSwept, "promoted") >= 30
                and total(told, LaneSwept, "reclaimed") >= 10
                and total(told, LaneCleaned, "restored") >= 20
                and total(told, LaneCleaned, "dropped") >= 15
            )
        )
        # And a whole round more, in which there is nothing to do.
        begun = len(told)
        await bench.accept("last")
        await bench.cancel("last")
        await told.until(lambda: total(told, LaneCleaned, "dropped") == 16)

    assert {type(event) for event in told[begun:]} == {LaneCleaned}
    assert total(told, LaneSwept, "promoted") == 30
    assert total(told, LaneSwept, "reclaimed") == 10
    assert total(told, LaneCleaned, "restored") == 20
    names = [run_id for _, run_id in await bench.waiting()]
    assert sorted(names) == sorted(
        [f"lost{n}" for n in range(20)] + [f"held{n}" for n in range(10)]
        + [f"alive{n}" for n in range(10)] + [f"due{n}" for n in range(30)]
    )  # fmt: skip
    assert {token for *_, token in await bench.pending()} == {"w2"}


async def test_a_leader_that_is_not_trusted_does_nothing(bench: Bench) -> None:
    """Until it is renewed; then it goes on."""
    await bench.accept("r1", delay_s=LEASE_S)
    await bench.fall_due("r1")
    await bench.accept("r2")
    await bench.cancel("r2")
    term = Term(1, anyio.current_time)
    before = await bench.snapshot()
    async with looked_after(bench, term) as told:
        await anyio.wait_all_tasks_blocked()
        assert await bench.snapshot() == before

        term.trust(anyio.current_time() + 600)
        await told.until(lambda: told.of(LaneSwept) and told.of(LaneCleaned))

    assert await bench.state("r1") is RunState.QUEUED


async def test_an_outage_is_told_when_it_begins_and_when_it_ends(
    bench: Bench, monkeypatch: Any
) -> None:
    """A line for each of its seconds and lanes would hide everything else."""
    away = True

    async def cut(send: Send, command: Sequence[Any]) -> Any:
        if away and command[0] in {"EVALSHA", "EVAL", "SCAN"}:
            await checkpoint()
            raise ConnectionResetError("cut")
        return await send(*command)

    bench.intercept(monkeypatch, cut)
    async with looked_after(bench, trusted()) as told:
        await told.until(lambda: len(told.of(StoreFailed)) == 2)
        away = False
        await told.until(lambda: len(told.of(StoreRecovered)) == 2)

    assert {event.during for event in told.of(StoreFailed)} == {"sweep", "clean"}
    assert all(event.error.startswith("StoreUnavailable: ") for event in told.of(StoreFailed))


async def test_whoever_leads_looks_after_all_lanes_also_new_ones(
    store: Connection, store_url: str
) -> None:
    """A queue gets more lanes while the scheduler runs."""
    first, second = (Bench(store, Lane("default", number)) for number in range(2))
    async with replicas(store_url, lease=LEASE_S) as crew:
        crew.start()
        await crew.until_led()
        await second.accept("r1", delay_s=0.01)
        await store.client.hset(first.lane.meta, mapping={"lanes": 2, "epoch": 1})
        await crew.transcript.until(lambda: crew.transcript.of(LaneSwept))

    assert crew.transcript.of(LaneSwept)[0].lane == "default:1"
