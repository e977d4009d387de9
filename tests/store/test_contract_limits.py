"""Limits: a full queue refuses, and runs over a limit wait in nobody's hands."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millstream.model.limit import Asked
from millstream.model.outcome import Completed, Continued, Failed, Parked, Refused, Released, Retry
from millstream.model.run import Delivery, RunState
from millstream.store import commits, depth_limits, layouts, losses, once, runs
from millstream.store.commits import Verdict
from millstream.store.keys import Lane
from millstream.store.runs import Full, NewRun, Once, Stands
from tests.store.bench import LEASE_S, LONG_S, RETENTION_S, Bench, ending

ONE = [Asked("one", 1)]


async def admit(
    bench: Bench, held: Delivery, asked: Sequence[Asked] = ONE, token: str = "w1"
) -> Verdict:
    return await bench.verdict(token, commits.admit(held, asked))


async def take(bench: Bench, *run_ids: str, token: str = "w1") -> list[Delivery]:
    await bench.accept(*run_ids)
    taken = await bench.take(token, len(run_ids))
    assert [held.run_id for held in taken] == list(run_ids)
    return taken


async def holders(bench: Bench, limit: str = "one") -> set[str]:
    found = await bench.redis.hkeys(f"{bench.lane.prefix}permits:{limit}")
    return {name.decode() for name in found}


async def limited(bench: Bench) -> int:
    return (await runs.depth(bench.store, bench.lane)).limited


# -- depth


async def test_a_full_lane_accepts_no_more(bench: Bench) -> None:
    """What waits counts, scheduled runs with the rest; what a worker holds does not."""
    await depth_limits.limit(bench.store, "default", 3)
    held = await bench.held("r1")
    await bench.accept("late", delay_s=LONG_S)

    assert await bench.accept("r2", "r3", "r4") == [True, True, Full(3, 3)]
    assert await bench.state("r4") is None
    assert await bench.accept("r2") == [False], "what is here is recognised"
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN
    assert await bench.accept("r4") == [Full(3, 3)]
    await bench.take("w1")
    assert await bench.accept("r4") == [True]


async def test_runs_that_others_wait_for_are_accepted_by_a_full_lane(bench: Bench) -> None:
    """A failed run that is started again was accepted long ago."""
    held = await bench.held("r1")
    await bench.end(held, Failed("E", "m"))
    await bench.accept("r2")
    await depth_limits.limit(bench.store, "default", 1)

    assert await bench.revive("r1") == ["queued"]


async def test_a_limit_on_depth_may_be_lifted_and_outlasts_a_resize(bench: Bench) -> None:
    """Lanes that come anew know of it, and each takes its part."""
    await depth_limits.limit(bench.store, "default", 4)
    await layouts.resize(bench.store, "default", 2)
    second = Bench(bench.store, Lane("default", 1))
    new = [NewRun(f"r{number}", "flow", b"{}") for number in range(3)]

    answers = await runs.enqueue(bench.store, second.lane, 1, new)
    assert answers == [True, True, Full(2, 2)]
    assert (await layouts.layout(bench.store, "default")).depth_limit == 4
    await depth_limits.limit(bench.store, "default", None)
    assert await runs.enqueue(bench.store, second.lane, 1, new) == [False, False, True]


# -- so many at a time


async def test_over_its_limit_a_run_waits_in_nobodys_hands(bench: Bench) -> None:
    """It holds no slot: its delivery is over, and it is queued."""
    first, second = await take(bench, "r1", "r2")

    assert await admit(bench, first) is Verdict.WRITTEN
    assert await admit(bench, first) is Verdict.WRITTEN, "said again, the same"
    assert await admit(bench, second) is Verdict.LIMITED
    assert await bench.state("r2") is RunState.QUEUED
    assert [entry for _, entry, _ in await bench.pending()] == [first.entry]
    assert await limited(bench) == 1
    status = await runs.status(bench.store, bench.lane, "r2")
    assert status is not None
    assert status.waits_for == "a permit of limit one"


ENDS = [
    Completed(b"1"), Failed("E", "m"), Retry(LONG_S, "E", "m"), Parked(None, 0.0),
    Released(), Refused(LONG_S), Continued(b"{}"),
]  # fmt: skip


@pytest.mark.parametrize("outcome", ENDS, ids=lambda outcome: type(outcome).__name__)
async def test_however_a_run_leaves_its_permit_goes_to_the_next(
    bench: Bench, outcome: Completed
) -> None:
    """It is handed over: whoever comes later cannot take it first."""
    first, second = await take(bench, "r1", "r2")
    await admit(bench, first)
    await admit(bench, second)

    await bench.end(first, outcome)
    assert await holders(bench) == {"r2"}
    (late,) = [x for x in await bench.take("w2", 9) if x.run_id == "r2"]
    (other,) = await take(bench, "r3", token="w2")
    assert await admit(bench, other, token="w2") is Verdict.LIMITED
    assert await admit(bench, late, token="w2") is Verdict.WRITTEN
    await bench.end(late, Completed(b"1"), "w2")
    assert await holders(bench) == {"r3"}


async def test_a_dead_workers_permits_go_to_the_next(bench: Bench) -> None:
    """A permit that a crash leaked would never come back."""
    first, second = await take(bench, "r1", "r2")
    await admit(bench, first)
    await admit(bench, second)
    await bench.renew("w1")
    await bench.lapse("w1")
    await bench.sweep()

    assert await holders(bench) == {"r2"}
    taken = {held.run_id: held for held in await bench.take("w2", 9)}
    assert await admit(bench, taken["r1"], token="w2") is Verdict.LIMITED
    assert await admit(bench, taken["r2"], token="w2") is Verdict.WRITTEN


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_run_keeps_no_permit_and_no_place(bench: Bench, granted: bool) -> None:
    """Neither while it waits for one, nor when one was just handed to it."""
    first, second, third = await take(bench, "r1", "r2", "r3")
    await admit(bench, first)
    await admit(bench, second)
    await admit(bench, third)
    if granted:
        await bench.end(first, Completed(b"1"))
        assert await holders(bench) == {"r2"}

    assert await bench.cancel("r2") == ["cancelled"]
    if not granted:
        await bench.end(first, Completed(b"1"))
    assert await holders(bench) == {"r3"}
    assert await limited(bench) == 0


async def test_the_line_goes_by_level_and_age(bench: Bench) -> None:
    """Whoever asked first: a permit goes to the most urgent."""
    (first,) = await take(bench, "r1")
    await admit(bench, first)
    for run_id, priority in (("low", "low"), ("normal", "normal"), ("high", "high")):
        await bench.accept(run_id, priority=priority)
    for held in await bench.take("w1", 9):
        await admit(bench, held)
    order = []
    for _ in range(3):
        await bench.end(first, Completed(b"1"))
        (first,) = await bench.take("w1", 1)
        await admit(bench, first)
        order.append(first.run_id)
    assert order == ["high", "normal", "low"]


async def test_a_run_under_two_limits_holds_neither_while_it_waits_for_one(bench: Bench) -> None:
    """Who held one and waited for the other could wait for somebody who does it the other way."""
    first, second, third = await take(bench, "r1", "r2", "r3")
    await admit(bench, first, [Asked("b", 1)])
    assert await admit(bench, second, [Asked("a", 1), Asked("b", 1)]) is Verdict.LIMITED
    assert await holders(bench, "a") == set()
    assert await admit(bench, third, [Asked("a", 1)]) is Verdict.WRITTEN

    await bench.end(first, Completed(b"1"))
    (again,) = await bench.take("w1", 1)
    assert await admit(bench, again, [Asked("a", 1), Asked("b", 1)]) is Verdict.LIMITED
    assert await holders(bench, "b") == set(), "it waits for the other one now"
    await bench.end(third, Completed(b"1"))
    (again,) = await bench.take("w1", 1)
    assert await admit(bench, again, [Asked("a", 1), Asked("b", 1)]) is Verdict.WRITTEN
    assert await holders(bench, "a") == await holders(bench, "b") == {"r2"}


async def test_a_limit_that_has_grown_lets_more_go_on(bench: Bench) -> None:
    """Whoever asks next says how many there may be, and those in line come first."""
    taken = await take(bench, *(f"r{number}" for number in range(5)))
    for held in taken[:4]:
        await admit(bench, held)
    assert await limited(bench) == 3

    assert await admit(bench, taken[4], [Asked("one", 3)]) is Verdict.LIMITED
    assert await holders(bench) == {"r0", "r1", "r2"}


async def test_a_permit_of_a_limit_that_is_gone_goes_to_the_next(bench: Bench) -> None:
    """A release without the limit takes over: what was handed out under it must not be lost."""
    first, second, third = await take(bench, "r1", "r2", "r3")
    await admit(bench, first)
    await admit(bench, second)
    await admit(bench, third)
    await bench.end(first, Completed(b"1"))
    (again,) = await bench.take("w1", 1)

    assert await admit(bench, again, [Asked("other", 1)]) is Verdict.WRITTEN
    assert (await holders(bench), await holders(bench, "other")) == ({"r3"}, {"r2"})


async def test_nobody_but_its_holder_asks_for_a_run(bench: Bench) -> None:
    """A zombie must not take a permit in a run's name."""
    (held,) = await take(bench, "r1")
    assert await admit(bench, held, token="thief") is Verdict.FENCED
    assert await admit(bench, held._replace(fence=7)) is Verdict.FENCED
    assert await holders(bench) == set()


async def test_what_something_else_occupies_is_told(bench: Bench) -> None:
    """A limit's name comes from arguments: the key may hold anything."""
    (held,) = await take(bench, "r1")
    await bench.redis.set(f"{bench.lane.prefix}permits:one", "foreign")
    assert await admit(bench, held) is Verdict.OCCUPIED
    assert await bench.end(held, Completed(b"1")) is Verdict.WRITTEN


async def test_a_line_that_something_else_occupies_is_told(bench: Bench) -> None:
    """The commit holds others' items: it must not end half-way."""
    first, second = await take(bench, "r1", "r2")
    await admit(bench, first)
    await bench.redis.set(f"{bench.lane.prefix}limited:one", "foreign")

    reply = await bench.commit(
        "w1", commits.admit(second, ONE), commits.journal(first, [("k", b"x")], "1")
    )
    assert reply.verdicts == (Verdict.OCCUPIED, Verdict.WRITTEN)
    assert await bench.state("r2") is RunState.RUNNING


@pytest.mark.parametrize("how", ["destroyed", "another", "foreign", "all"])
async def test_a_permit_of_a_record_that_is_gone_comes_back(bench: Bench, how: str) -> None:
    """Who waits for it would wait for ever: nothing moves a run that is not there any more."""
    first, second, third = await take(bench, "r1", "r2", "r3")
    for held in (first, second, third):
        await admit(bench, held)
    await bench.sweep()
    assert await holders(bench) == {"r1"}, "its holder lives"

    await bench.redis.delete(bench.lane.run("r1"))
    match how:
        case "another":
            await bench.accept("r1")
        case "foreign":
            await bench.redis.set(bench.lane.run("r1"), "foreign")
        case "all":
            await bench.redis.delete(f"{bench.lane.prefix}permits:one")
    await bench.sweep()
    await bench.sweep()
    assert await holders(bench) == {"r2"}
    await bench.redis.delete(bench.lane.run("r3"))
    await bench.sweep()
    assert await limited(bench) == 0, "who waited is gone, too"


async def test_only_a_run_in_no_line_is_put_back(bench: Bench) -> None:
    """What waits for a permit is not lost, unless its line is."""
    first, second = await take(bench, "r1", "r2")
    await admit(bench, first)
    await admit(bench, second)
    assert await losses.restore(bench.store, bench.lane, ["r2"], LEASE_S, RETENTION_S) == 0

    await bench.redis.delete(f"{bench.lane.prefix}limited:one")
    assert await losses.restore(bench.store, bench.lane, ["r2"], LEASE_S, RETENTION_S) == 1
    (again,) = await bench.take("w1", 1)
    assert await admit(bench, again) is Verdict.LIMITED


# -- so many that begin in a period


async def test_over_a_rate_a_run_comes_back_at_a_time_of_its_own(bench: Bench) -> None:
    """Evenly spread, so that those who wait do not all come back at once to be refused again."""
    rate = [Asked("rate", 2, 60_000)]
    taken = await take(bench, "r1", "r2", "r3", "r4")
    verdicts = [await admit(bench, held, rate) for held in taken]

    assert verdicts == [Verdict.WRITTEN] * 2 + [Verdict.LIMITED] * 2
    third, fourth = [
        await bench.redis.zscore(bench.lane.timers, run_id) - await bench.now_ms()
        for run_id in ("r3", "r4")
    ]
    assert 25_000 < third <= 30_000
    assert 55_000 < fourth <= 60_000


async def test_a_run_is_counted_under_a_rate_once(bench: Bench) -> None:
    """Not again when its time has come, nor after a park or a crash."""
    rate = [Asked("rate", 1, 60_000)]
    first, second = await take(bench, "r1", "r2")
    await admit(bench, first, rate)
    assert await admit(bench, second, rate) is Verdict.LIMITED
    await bench.fall_due("r2")
    await bench.sweep()

    (again,) = await bench.take("w1", 1)
    assert await admit(bench, again, rate) is Verdict.WRITTEN
    await bench.end(again, Released())
    (again,) = await bench.take("w1", 1)
    assert await admit(bench, again, rate) is Verdict.WRITTEN


async def test_a_rate_is_paid_and_a_permit_waited_for(bench: Bench) -> None:
    """Both kinds of limit at once."""
    both = [Asked("rate", 9, 60_000), Asked("one", 1)]
    first, second = await take(bench, "r1", "r2")
    assert await admit(bench, first, both) is Verdict.WRITTEN
    assert await admit(bench, second, both) is Verdict.LIMITED
    assert await bench.state("r2") is RunState.QUEUED


# -- once


def new(run_id: str, arguments: bytes = b"{}", mode: str = "dedupe", **values: str) -> NewRun:
    what = Once(mode, "key", 60.0, 600.0)
    return NewRun(run_id, values.get("workflow", "flow"), arguments, once=what)


async def ask(bench: Bench, run: NewRun) -> runs.Answer:
    answer = await once.enqueue(bench.store, bench.lane, 0, run)
    assert not isinstance(answer, runs.Resized)
    return answer


async def test_within_a_window_a_name_stands_for_one_run(bench: Bench) -> None:
    """Whatever it is given meanwhile, and also after it has ended."""
    assert await ask(bench, new("r1")) == Stands("r1", True)
    assert await ask(bench, new("r1")) == Stands("r1", True), "a lost reply"
    assert await ask(bench, new("r2", b'{"a":1}')) == Stands("r1", False)
    (held,) = await bench.take("w1")
    await bench.verdict("w1", ending(held, Completed(b"1")))
    assert await ask(bench, new("r3")) == Stands("r1", False)
    assert await ask(bench, new("r4", workflow="other")) == "flow"

    await bench.redis.delete(f"{bench.lane.prefix}dedupe:key")  # as when the window is over
    assert await ask(bench, new("r5")) == Stands("r5", True)


async def test_the_last_arguments_win_until_a_debounced_run_begins(bench: Bench) -> None:
    """One run for a burst, a window after its end."""
    place = f"{bench.lane.prefix}debounce:key"
    assert await ask(bench, new("r1", b'{"a":1}', "debounce")) == Stands("r1", True)
    assert await ask(bench, new("r2", b'{"a":2}', "debounce")) == Stands("r1", False)
    due = await bench.redis.zscore(bench.lane.timers, "r1")
    assert 55_000 < due - await bench.now_ms() <= 60_000
    assert await bench.state("r2") is None

    # Whoever goes on and on: the first came nearly ten windows ago.
    first = int(await bench.now_ms()) - 595_000
    await bench.redis.set(place, f"{first} r1")
    await ask(bench, new("r3", b'{"a":3}', "debounce"))
    due = await bench.redis.zscore(bench.lane.timers, "r1")
    assert due - await bench.now_ms() <= 5_000

    await bench.fall_due("r1")
    await bench.sweep()
    (held,) = await bench.take("w1")
    assert (held.run_id, held.arguments) == ("r1", b'{"a":3}')
    assert await ask(bench, new("r4", b'{"a":4}', "debounce")) == Stands("r4", True)


async def test_what_happens_once_is_accepted_like_the_rest(bench: Bench) -> None:
    """By the epoch of the lane, within its depth, and never over what is not ours."""
    assert await once.enqueue(bench.store, bench.lane, 3, new("r1")) == runs.Resized(1, 0)
    await bench.redis.lpush(f"{bench.lane.prefix}debounce:key", "foreign")
    assert await ask(bench, new("r1", mode="debounce")) == runs.OCCUPIED
    await depth_limits.limit(bench.store, "default", 1)
    await bench.accept("r0")
    assert await ask(bench, new("r1")) == Full(1, 1)
    assert await bench.state("r1") is None


async def test_a_rate_of_many_a_second_is_charged_in_full(bench: Bench) -> None:
    """Each takes less than a millisecond: twenty at one moment take eight."""
    taken = await take(bench, *(f"r{n}" for n in range(20)))
    reply = await bench.commit(
        "w1", *(commits.admit(x, [Asked("fast", 2500, 1000)]) for x in taken)
    )
    assert set(reply.verdicts) == {Verdict.WRITTEN}

    charged = float(await bench.redis.get(f"{bench.lane.prefix}rate:fast"))
    assert charged - reply.now * 1000 == pytest.approx(8)
