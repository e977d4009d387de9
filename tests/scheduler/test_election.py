"""Replicas of the scheduler: one leads, and when it is gone another does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import anyio

from millstream.events import LeaderChanged
from millstream.store import leadership
from millstream.store.connection import Connection
from millstream.store.leadership import Seat
from millstream_scheduler.elector import Elector
from millstream_scheduler.term import Term
from tests.scheduler.replicas import Transcript, replicas

SEAT = Seat(("default",))
(KEY,) = SEAT.keys


class Clock:
    """A monotonic clock that can jump."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return anyio.current_time() + self.ahead_s


async def test_exactly_one_of_three_leads(store_url: str) -> None:
    """Two would show every gauge twice."""
    async with replicas(store_url, lease=3) as crew:
        crew.start(3)
        leader = await crew.until_led()
        await crew.until_turned(2)

        assert [x for x in crew if x.leading] == [leader]
        assert crew.most == 1


async def test_a_leader_that_crashed_is_followed_within_a_lease(store_url: str) -> None:
    """It gives nothing back; its term has to run out."""
    async with replicas(store_url, lease=0.6) as crew:
        crew.start(3)
        first = await crew.until_led()
        await crew.until_turned(2)
        crashed = anyio.current_time()
        first.crash()
        second = await crew.until_led()

        # The term, the look, and a busy machine.
        assert anyio.current_time() - crashed < 0.6 + 0.06 + 2
        assert second is not first
        assert crew.most == 1
        assert await second.connection.client.hget(KEY, "fence") == b"2"


async def test_a_leader_that_leaves_is_followed_at_once(store_url: str) -> None:
    """A rolling update must not cost a lease."""
    async with replicas(store_url, lease=300) as crew:
        crew.start(2)
        first = await crew.until_led()
        (other,) = (x for x in crew if x is not first)
        await crew.transcript.until(lambda: other.health.count)
        first.scheduler.drain.set()
        await crew.transcript.until(lambda: other.leading, 5)

        assert not first.leading
        assert not first.health.ready().ok


async def test_who_leaves_does_not_come_back(store_url: str) -> None:
    """The last one to leave must not be elected on its way out."""
    async with replicas(store_url, lease=0.6) as crew:
        only = crew.start()
        await crew.until_led()
        only.scheduler.drain.set()
        with anyio.fail_after(5):
            await only.gone.wait()

    async with replicas(store_url, lease=0.6) as crew:
        late = crew.start()
        assert await crew.until_led(0.5) is late


async def test_a_leader_that_lost_the_seat_stops_and_is_elected_again(store_url: str) -> None:
    """Its term ran out by the clock of Redis: it leads again under a new fence, not the old."""
    async with replicas(store_url, lease=0.6) as crew:
        only = crew.start()
        await crew.until_led()
        await only.connection.client.hset(KEY, "until", "1")
        await crew.transcript.until(lambda: len(crew.transcript.of(LeaderChanged)) >= 4)

        said = [event.leading for event in crew.transcript.of(LeaderChanged)]
        assert said[:4] == [False, True, False, True]
        assert await only.connection.client.hget(KEY, "fence") == b"2"


async def test_who_finds_another_on_its_seat_stops(store_url: str) -> None:
    """A failover forgot the election, and another was elected."""
    async with replicas(store_url, lease=0.6) as crew:
        only = crew.start()
        await crew.until_led()
        client = only.connection.client
        await client.delete(KEY)
        await leadership.seek(only.connection, SEAT, "another", 60)
        await crew.transcript.until(lambda: len(crew.transcript.of(LeaderChanged)) == 3)
        await crew.until_turned(2)

        assert not only.leading
        assert await client.hget(KEY, "token") == b"another"


async def test_a_leader_whose_clock_ran_past_its_term_trusts_nothing(memory_url: str) -> None:
    """It was frozen, or its machine slept: until it is renewed it does not lead."""
    clock = Clock()
    async with replicas(memory_url, lease=30) as crew:
        only = crew.start(parts={"mono": clock})
        await crew.until_led()
        clock.ahead_s += 30

        assert not only.leading


# -- the elector by itself


def elector(store: Connection, mono: Iterator[float], transcript: Transcript) -> Elector:
    return Elector(
        store,
        SEAT,
        "a",
        lease_s=10,
        emit=transcript,
        mono=lambda: next(mono),
        turned=lambda _: None,
    )


async def test_an_election_whose_answer_came_too_late_is_of_no_use(store: Connection) -> None:
    """Trust is counted from when it was asked for: another may have been elected since."""
    # It is asked at 0 and answered at 9: a tenth of the lease is not trusted.
    candidate = elector(store, itertools.chain([0.0], itertools.repeat(9.0)), Transcript())

    assert await candidate._campaign() == 0
    assert not candidate.leading


async def test_who_has_resigned_does_not_ask_again(store: Connection) -> None:
    """A turn of the loop may still come after the seat was left."""
    candidate = elector(store, itertools.repeat(0.0), Transcript())
    await candidate._campaign()
    await candidate.resign()
    await candidate._campaign()

    assert not candidate.leading
    assert (await leadership.seek(store, SEAT, "b", 10)).leading


async def test_a_term_is_trusted_for_less_than_it_lasts(store: Connection) -> None:
    now = [0.0]
    mono = (now[0] for _ in itertools.count())
    candidate = elector(store, mono, Transcript())
    await candidate._campaign()

    for now[0], leads in [(0.0, True), (8.9, True), (9.1, False)]:
        assert candidate.leading is leads


async def test_what_a_leader_does_is_cut_when_its_trust_ends() -> None:
    """Also when it waits for an answer and never gets round to asking."""
    term = Term(1, anyio.current_time)
    term.trust(anyio.current_time() + 0.05)

    with anyio.fail_after(5):
        with term.scope:
            await anyio.sleep_forever()

    assert term.over
    assert not term.trusted
