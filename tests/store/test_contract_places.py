"""Runs are gone through page by page: each is met once, and a page costs so much and no more."""

from __future__ import annotations

import pytest

from millstream.model.run import RunState, RunStatus
from millstream.store import places
from millstream.store.places import Position
from tests.store.bench import Bench

ALL = frozenset(RunState)


async def through(
    bench: Bench, where: tuple[str, ...], limit: int, workflow: str = ""
) -> list[str]:
    """Go through all pages."""

    def matches(status: RunStatus) -> bool:
        return not workflow or status.workflow == workflow

    found: list[str] = []
    at: Position | None = None
    for _ in range(500):
        page = await places.page_of(bench.store, bench.lane, where, at, limit, matches)
        assert len(page.runs) <= limit
        found += [status.id for status in page.runs]
        at = page.next
        if at is None:
            return found

    raise AssertionError("it never ends")


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_every_run_is_met_once_wherever_it_stands(bench: Bench, limit: int) -> None:
    """Held, waiting, scheduled, and ended at the same moment."""
    for n in range(9):
        await bench.accept(f"q{n}")
    for n in range(5):
        await bench.accept(f"s{n}", delay_s=100 + n)
    await bench.accept("x", "y")
    await bench.take("w1", count=3)
    await bench.cancel("q7", "q8")

    found = await through(bench, places.states_places(ALL), limit)

    names = [*(f"q{n}" for n in range(9)), *(f"s{n}" for n in range(5)), "x", "y"]
    assert sorted(found) == sorted(names)
    running = await through(bench, places.states_places(frozenset({RunState.RUNNING})), limit)
    assert len(running) == 3
    ended = await through(bench, places.states_places(frozenset({RunState.CANCELLED})), limit)
    assert sorted(ended) == ["q7", "q8"]


async def test_runs_that_ended_together_are_told_apart(bench: Bench) -> None:
    """A whole batch has one score in the index: more of them than one look-up takes."""
    names = [f"r{n:03}" for n in range(450)]
    for first in range(0, 450, 150):
        await bench.accept(*names[first : first + 150])
    key = bench.lane.ended
    for name in names:
        await bench.redis.hset(bench.lane.run(name), "state", "completed")
    await bench.redis.zadd(key, dict.fromkeys(names, 5_000_000_000_000))

    found = await through(bench, ("ended",), 70)

    assert found == sorted(names, reverse=True)


async def test_a_page_of_nothing_ends_early_and_says_where_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that nothing fits must not walk through a million runs in one request."""
    monkeypatch.setattr(places, "MOST_LOOKED_AT", 10)
    monkeypatch.setattr(places, "_STEP", 5)
    await bench.accept(*(f"r{n}" for n in range(30)))

    page = await places.page_of(
        bench.store, bench.lane, ("queued:normal",), None, 5, lambda status: False
    )

    assert page.runs == ()
    assert page.next is not None
    assert len(await through(bench, ("queued:normal",), 5)) == 30
