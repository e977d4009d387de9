"""Pools: never more permits are out than there are, and what nobody speaks for comes back."""

from __future__ import annotations

from collections import Counter

import pytest

from millstream.store import pools
from millstream.store.connection import Connection
from millstream.store.pools import Pool, Rate, Share

POOL = Pool("default/tools/tickets")
LEASE_S = 60.0


class Speaker:
    """Processes that number their calls, as they must."""

    def __init__(self, store: Connection) -> None:
        self.store = store
        self.said: Counter[str] = Counter()

    async def __call__(
        self, token: str, keep: int, want: int, most: int = 3, lease_s: float = LEASE_S
    ) -> int:
        """Say something; return how many permits the process has."""
        share = await self.share(token, keep, want, most, lease_s)
        return share.has

    async def share(
        self, token: str, keep: int, want: int, most: int = 3, lease_s: float = LEASE_S
    ) -> Share:
        self.said[token] += 1
        said = self.said[token]
        share = await pools.speak(self.store, POOL, token, said, keep, want, most, lease_s)
        assert share is not None
        return share

    async def lapse(self, *tokens: str) -> None:
        """Let the leases of processes run out, long after a time in which nobody spoke."""
        await self.store.client.zadd(POOL.keys[1], dict.fromkeys(tokens, 1), xx=True)


@pytest.fixture
def speak(store: Connection) -> Speaker:
    return Speaker(store)


async def test_no_more_are_out_than_there_are(speak: Speaker) -> None:
    assert await speak("a", 0, 2) == 2
    assert await speak("b", 0, 2) == 1, "the rest is waited for"
    assert await speak("c", 0, 1) == 0
    assert await speak("a", 2, 5) == 2, "and nobody passes those who wait"


async def test_what_is_given_back_goes_to_who_came_first(speak: Speaker) -> None:
    """Who comes later, and be it who gave it back, is behind."""
    await speak("a", 0, 3)
    await speak("b", 0, 2)
    await speak("c", 0, 1)

    share = await speak.share("a", 1, 2)
    assert (share.has, share.others) == (1, 2)
    assert await speak("c", 0, 1) == 0
    assert await speak("b", 0, 2) == 2
    await speak("a", 0, 2)
    assert await speak("c", 0, 1) == 1


async def test_who_never_has_enough_takes_turns_with_the_rest(speak: Speaker) -> None:
    """It stands in the line all the time, and would always be the first there."""
    assert await speak("a", 0, 9) == 3
    assert await speak("b", 0, 9) == 0
    assert await speak("c", 0, 1) == 0

    assert await speak("a", 0, 9) == 0, "what it gives back is for those who came before"
    assert await speak("b", 0, 9) == 3
    assert await speak("b", 2, 7) == 2
    assert await speak("a", 0, 9) == 0, "c has waited longer"
    assert await speak("c", 0, 1) == 1
    assert await speak("c", 0, 0) == 0
    assert await speak("a", 0, 9) == 1


async def test_who_waits_is_told_and_who_might_give(speak: Speaker) -> None:
    """A message is for those it concerns: nobody looks from time to time."""
    ear = pools.listen(speak.store, POOL)
    await ear.open()
    await speak("a", 0, 3)
    await speak("b", 0, 1)
    assert await ear.next(5) == pools.WAITS + b"b"
    await speak("b", 0, 1)
    await speak("a", 2, 0)
    assert await ear.next(5) == b"b", "said once: who waits already did not ask anew"
    await ear.aclose()


async def test_a_call_may_be_sent_again_and_an_old_one_does_nothing(speak: Speaker) -> None:
    """A lost reply, and one that was held up on its way."""
    await speak("a", 0, 2)
    assert await speak("a", 0, 2) == 2, "the same, under a number of its own"
    assert await pools.speak(speak.store, POOL, "a", 1, 0, 0, 3, LEASE_S) is None
    assert await speak("b", 0, 3) == 1


async def test_what_nobody_speaks_for_comes_back(speak: Speaker) -> None:
    """A process that died has its permits for a lease, and its place in the line."""
    await speak("dead", 0, 3)
    await speak("late", 0, 1)
    await speak("b", 0, 2)
    assert await speak("b", 0, 2) == 0
    await speak.lapse("dead", "late")

    share = await speak.share("b", 0, 2)
    assert (share.has, share.others) == (2, 0)
    assert await speak("c", 0, 3) == 1
    assert await speak("dead", 2, 0) == 0, "it was not dead, and knows now"


async def test_a_lease_that_ran_out_with_nobody_there_is_taken_up(speak: Speaker) -> None:
    """What it uses comes before what others wait for."""
    await speak("a", 0, 3)
    await speak("b", 0, 2)
    await speak.lapse("a")
    assert await speak("a", 3, 0) == 3
    await speak.lapse("a")
    assert await speak("b", 0, 2) == 2
    assert await speak("a", 3, 0) == 1


async def test_after_a_time_in_which_nobody_spoke_nothing_lapses(speak: Speaker) -> None:
    """Redis was away, and those who use their permits could not say so."""
    await speak("a", 0, 3)
    await speak.lapse("a")
    await speak.store.client.hset(POOL.keys[0], "spoke", 1)

    share = await speak.share("b", 0, 1)
    assert share.has == 0
    assert 0 < share.lapse_s <= LEASE_S
    assert await speak("a", 3, 0) == 3


async def test_a_pool_that_grows_or_shrinks_is_what_the_last_one_says(speak: Speaker) -> None:
    await speak("a", 0, 3)
    assert await speak("b", 0, 2, most=4) == 1
    assert await speak("b", 1, 2, most=2) == 1
    assert await speak("a", 0, 0) == 0
    assert await speak("b", 1, 2, most=2) == 2


async def test_who_needs_nothing_leaves_nothing_behind(speak: Speaker) -> None:
    """Processes come and go."""
    await speak("a", 0, 3)
    await speak("b", 0, 1)
    await speak("b", 0, 0)
    await speak("a", 0, 0)
    for key in POOL.keys[1:]:
        assert not await speak.store.client.exists(key)
    assert 0 < await speak.store.client.pttl(POOL.keys[0]) <= 660_000


async def test_a_rate_spreads_what_goes_beyond_it(store: Connection) -> None:
    """Two at once, and then one each half of a period, whoever asks."""
    rate = Rate("default/tools/tickets")
    first, step = await pools.pace(store, rate, 2, 2, 60.0)
    assert (first + step <= 0, step) == (True, 30.0)
    first, _ = await pools.pace(store, rate, 3, 2, 60.0)
    assert 29 < first <= 30
    first, _ = await pools.pace(store, rate, 1, 2, 60.0)
    assert 119 < first <= 120
