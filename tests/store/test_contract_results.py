"""watch.lua and the inbox: whoever waits learns the end of a run, told or asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anyio import fail_after

from millstream.model.limits import LIMITS
from millstream.model.outcome import Completed, Failed, Released
from millstream.model.run import RunState
from millstream.store import commits, results, sayings
from millstream.store.results import End, Inbox, Message, Pending, Unknown
from tests.store.bench import Bench
from tests.store.states import put

CANCELLED = b'["RunCancelled","the run was cancelled"]'


@asynccontextmanager
async def opened(bench: Bench, name: str = "c1") -> AsyncIterator[AsyncIterator[Message | None]]:
    """The messages of an inbox."""
    inbox = Inbox(bench.store, bench.lane, name)
    await inbox.open()
    try:
        yield inbox.messages(0.05)
    finally:
        await inbox.aclose()


async def heard(messages: AsyncIterator[Message | None], count: int) -> list[Message]:
    """The next messages."""
    found: list[Message] = []
    with fail_after(10):
        while len(found) < count:
            message = await anext(messages)
            if message is not None:
                found.append(message)
    return found


async def watch(bench: Bench, *ids: str, inbox: str = "c1") -> list[End | Pending | Unknown]:
    return await results.watch(bench.store, bench.lane, inbox, ids)


@pytest.mark.parametrize(
    ("state", "payload"),
    [
        (RunState.COMPLETED, b"1"),
        (RunState.FAILED, b'["E","m"]'),
        (RunState.CANCELLED, CANCELLED),
    ],
)
async def test_an_end_that_has_come_is_read_at_once(
    bench: Bench, state: RunState, payload: bytes
) -> None:
    """Nobody publishes it again."""
    await put(bench, state)
    before = await bench.snapshot()

    assert await watch(bench, "r1", "unknown") == [End(state, payload), Unknown()]

    assert await bench.snapshot() == before


async def test_the_end_of_a_run_is_published_to_who_asked(bench: Bench) -> None:
    """One subscription a lane, however many runs; and nothing about the runs of others."""
    await bench.accept("r1", "r2", "r3")
    one, two, three = await bench.take("w1", 3)
    async with opened(bench) as messages:
        assert await watch(bench, "r1", "r2") == [Pending(), Pending()]

        await bench.end(three, Completed(b"3"))
        await bench.end(one, Completed(b'{"x":"\\n"}\n'))
        await bench.end(two, Failed("E", "m"))

        assert await heard(messages, 2) == [
            Message("r1", End(RunState.COMPLETED, b'{"x":"\\n"}\n')),
            Message("r2", End(RunState.FAILED, b'["E","m"]')),
        ]
        assert await anext(messages) is None


async def test_every_way_to_an_end_is_published(bench: Bench) -> None:
    """Cancelled while queued, given up as poison, cancelled while its worker died."""
    await bench.renew("w1")
    await bench.accept("poison", "dying")
    await bench.take("w1", 2)
    await bench.accept("queued")
    async with opened(bench) as messages:
        await watch(bench, "poison", "dying", "queued")

        await bench.cancel("queued", "dying")
        await bench.lapse("w1")
        await bench.redis.hset(bench.lane.run("poison"), "crashes", 2)
        await bench.sweep()

        lost = b'["worker_lost","3 workers died while they held this run"]'
        assert await heard(messages, 3) == [
            Message("queued", End(RunState.CANCELLED, CANCELLED)),
            Message("poison", End(RunState.FAILED, lost)),
            Message("dying", End(RunState.CANCELLED, CANCELLED)),
        ]


async def test_what_is_too_large_to_publish_is_to_be_looked_at(bench: Bench) -> None:
    """A megabyte a waiter would be the server's whole bandwidth."""
    await bench.accept("r1", "r2")
    one, two = await bench.take("w1", 2)
    async with opened(bench) as messages:
        await watch(bench, "r1", "r2")

        await bench.end(one, Completed(b"x" * 8193))
        await bench.end(two, Completed(b"x" * 8192))

        first, second = await heard(messages, 2)

    assert first == Message("r1", None)
    assert second == Message("r2", End(RunState.COMPLETED, b"x" * 8192))
    assert await watch(bench, "r1") == [End(RunState.COMPLETED, b"x" * 8193)]


async def test_each_waiter_is_told_once(bench: Bench) -> None:
    """Two clients wait, one of them asked twice."""
    held = await bench.held("r1")
    async with opened(bench, "c1") as first, opened(bench, "c2") as second:
        for inbox in ("c1", "c2", "c1"):
            assert await watch(bench, "r1", inbox=inbox) == [Pending()]
        assert (await bench.fields("r1"))["waiters"] == "c1 c2"

        await bench.end(held, Completed(b"1"))
        await bench.end(held, Completed(b"1"))

        for messages in (first, second):
            assert len(await heard(messages, 1)) == 1
            assert await anext(messages) is None


async def test_waiters_are_bounded(bench: Bench) -> None:
    """The oldest is forgotten: it loses a hint, and asks again from time to time."""
    await bench.accept("r1")
    for number in range(LIMITS.waiters + 2):
        await watch(bench, "r1", inbox=f"c{number}")

    waiters = (await bench.fields("r1"))["waiters"].split()

    assert waiters == [f"c{number}" for number in range(2, LIMITS.waiters + 2)]


async def test_a_run_that_goes_on_publishes_nothing(bench: Bench) -> None:
    """Only an end is an end."""
    held = await bench.held("r1")
    async with opened(bench) as messages:
        await watch(bench, "r1")

        await bench.verdict("w1", commits.journal(held, [("a", b"1")], "1"))
        await bench.end(held, Released())

        assert await anext(messages) is None
    assert await watch(bench, "r1") == [Pending()]


async def test_whoever_waits_for_events_learns_which_runs_have_some(bench: Bench) -> None:
    """One connection waits for all: it is told of those that said something, and of no other."""
    held = await bench.held("r1")
    places = {"r1": "0-0", "r2": "0-0"}
    with fail_after(4):
        for block_s in (0, 0.0001):
            heard = await sayings.with_news(bench.store, bench.redis, bench.lane, places, block_s)
            assert heard == []
    before = await bench.now_ms()
    emit = commits.emit(held, "e", b"said", b'["progress",{"done":1}]', "1")
    await bench.verdict("w1", emit)

    heard = await sayings.with_news(bench.store, bench.redis, bench.lane, places, 1.0)

    assert heard == ["r1"]
    (event,) = (await sayings.heard(bench.store, bench.lane, "r1", "")).said
    assert (event.name, event.data) == ("progress", {"done": 1})
    assert before <= round(event.at * 1000) <= await bench.now_ms()
    places["r1"] = event.id
    assert await sayings.with_news(bench.store, bench.redis, bench.lane, places, 0.01) == []


async def test_events_are_read_in_pages(bench: Bench) -> None:
    """Whoever reads goes on after the last id it has seen, and misses nothing."""
    held = await bench.held("r1")
    items = [
        commits.emit(held, f"e{number}", b"said", b'["n",%d]' % number, "1")
        for number in range(250)
    ]
    await bench.commit("w1", *items)

    found: list[object] = []
    after = ""
    while page := (await sayings.heard(bench.store, bench.lane, "r1", after)).said:
        assert len(page) <= 100
        found += (event.data for event in page)
        after = page[-1].id

    assert found == list(range(250))
