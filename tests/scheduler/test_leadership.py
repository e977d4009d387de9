"""elect.lua: one seat, one holder, and a fence that grows with every election."""

from __future__ import annotations

from millstream.store import leadership
from millstream.store.connection import Connection
from millstream.store.leadership import Answer, Seat

SEAT = Seat(("default",))
(KEY,) = SEAT.keys


async def seek(store: Connection, token: str, lease_s: float = 60, seat: Seat = SEAT) -> Answer:
    return await leadership.seek(store, seat, token, lease_s)


async def lapse(store: Connection) -> None:
    await store.client.hset(KEY, "until", "1")


async def test_a_free_seat_is_given_to_whoever_asks_first(store: Connection) -> None:
    """The others learn how long to wait."""
    first, second = await seek(store, "a"), await seek(store, "b")

    assert (first.leading, first.fence, first.left_s) == (True, 1, 60)
    assert (second.leading, second.fence) == (False, 1)
    assert 59 < second.left_s <= 60


async def test_asking_twice_is_one_election(store: Connection) -> None:
    """The reply of the first time may have been lost."""
    await seek(store, "a")

    assert await seek(store, "a") == Answer(leading=True, fence=1, left_s=60)


async def test_a_term_goes_on_under_its_own_fence_only(store: Connection) -> None:
    """Who woke up under an old fence does not lead, though its token is on the seat."""
    await seek(store, "a")

    assert (await leadership.renew(store, SEAT, "a", 1, 60)).leading
    assert not (await leadership.renew(store, SEAT, "a", 2, 60)).leading
    assert not (await leadership.renew(store, SEAT, "b", 1, 60)).leading


async def test_a_term_that_ran_out_is_not_renewed(store: Connection) -> None:
    """Somebody else may have led in between; a new election has a new fence."""
    await seek(store, "a")
    await lapse(store)

    assert await leadership.renew(store, SEAT, "a", 1, 60) == Answer(
        leading=False, fence=1, left_s=0
    )
    assert await seek(store, "b") == Answer(leading=True, fence=2, left_s=60)
    assert not (await seek(store, "a")).leading


async def test_a_seat_that_was_left_is_free_at_once(store: Connection) -> None:
    await seek(store, "a")
    await leadership.resign(store, SEAT, "a")

    assert await seek(store, "b") == Answer(leading=True, fence=2, left_s=60)


async def test_only_the_holder_can_leave_the_seat(store: Connection) -> None:
    await seek(store, "a")
    await leadership.resign(store, SEAT, "b")

    assert not (await seek(store, "b")).leading


async def test_a_renewal_that_comes_late_seats_nobody_again(store: Connection) -> None:
    """Sent before the resignation and read after it, over another connection."""
    await seek(store, "a")
    await leadership.resign(store, SEAT, "a")

    assert not (await leadership.renew(store, SEAT, "a", 1, 60)).leading
    assert (await seek(store, "b")).leading


async def test_a_clock_that_went_back_keeps_nobody_on_the_seat(store: Connection) -> None:
    """A term never lasts longer than its length, whatever the clock of Redis did."""
    await seek(store, "a", lease_s=5)
    await store.client.hset(KEY, "until", str(10**14))

    assert 4 < (await seek(store, "b")).left_s <= 5
    assert int(await store.client.hget(KEY, "until")) < 10**14


async def test_other_queues_have_a_seat_of_their_own(store: Connection) -> None:
    """Else a scheduler of one queue would stand idle while another leads for another queue."""
    assert (await seek(store, "a")).leading
    assert (await seek(store, "b", seat=Seat(("mail",)))).leading
    assert Seat(("b", "a", "b")).keys == Seat(("a", "b")).keys


async def test_the_seat_is_no_key_of_a_lane(store: Connection) -> None:
    """In a cluster it has a slot of its own, whatever the queues are called."""
    await seek(store, "a")

    assert [key.decode() for key in await store.client.keys("*")] == [
        "millstream:{scheduler}:leader:default"
    ]
