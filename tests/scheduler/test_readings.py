"""What a scheduler knows of its queues: true, with its age, and the same in every replica."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from millstream.errors import StaleReading, StoreError
from millstream.events import QueueSampled
from millstream.store import leadership, samples
from millstream.store.connection import Connection
from millstream.store.leadership import Seat
from millstream.store.samples import Sample
from millstream_scheduler.readings import Readings
from millstream_scheduler.sharing import Sharing
from tests.scheduler.replicas import Transcript, replicas

SEAT = Seat(("default", "mail"))


def reading(queue: str = "default", waiting: int = 7) -> QueueSampled:
    return QueueSampled(
        queue=queue, waiting=waiting, running=3, scheduled=0, parked=0, dead=0, oldest_s=1.5,
        workers=2, due=1, slots=8, arrival_rate=0.5, service_s=4.0,
    )  # fmt: skip


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def knowing(clock: Clock) -> Readings:
    return Readings(["default", "mail"], stale_s=30, mono=clock)


def test_a_reading_that_is_too_old_is_an_error_and_no_zero() -> None:
    """A zero would scale the fleet away."""
    clock = Clock()
    readings = knowing(clock)
    readings.keep(reading())
    clock.now += 30
    assert readings.fresh("default").sampled.waiting == 7
    clock.now += 0.1

    with pytest.raises(StaleReading, match=r"'default'.*30 s old, and believed for 30 s") as raised:
        readings.fresh("default")
    assert raised.value.age_s == pytest.approx(30.1)


def test_a_queue_that_was_never_read_is_an_error() -> None:
    with pytest.raises(StaleReading, match="there is no reading of it yet"):
        knowing(Clock()).fresh("mail")


def test_an_older_reading_does_not_replace_a_newer_one() -> None:
    """A follower reads what a deposed leader wrote last."""
    clock = Clock()
    readings = knowing(clock)
    readings.keep(reading(waiting=1))
    readings.keep(reading(waiting=2), age_s=5)

    assert readings.fresh("default").sampled.waiting == 1


def test_queues_of_others_are_not_kept() -> None:
    """What is read comes from Redis; how much of it is kept is ours to say."""
    readings = knowing(Clock())
    readings.keep(reading("foreign"))

    assert readings.samples() == []


async def test_what_stood_in_a_buffer_is_as_old_as_it_is(
    store: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that was frozen while it asked must not take an old answer for a new one."""
    clock = Clock()
    readings = knowing(clock)
    sharing = Sharing(
        store, SEAT, "b", readings, interval_s=60, emit=Transcript(), mono=clock
    )  # fmt: skip

    async def slowly(*_: object) -> list[Sample]:
        clock.now += 40
        return [Sample(reading(), 1.0)]

    monkeypatch.setattr(samples, "published", slowly)
    await sharing._follow()

    with pytest.raises(StaleReading, match="41 s old"):
        readings.fresh("default")


# -- between schedulers ------------------------------------------------------------------------


async def elected(store: Connection, token: str) -> int:
    return (await leadership.seek(store, SEAT, token, 60)).fence


async def test_what_the_leader_publishes_is_read_with_its_age(store: Connection) -> None:
    fence = await elected(store, "a")
    sent = [Sample(reading(), 2.0), Sample(reading("mail", 9), 4.0)]

    assert await samples.publish(store, SEAT, "a", fence, sent)
    found = await samples.published(store, SEAT)

    assert [each.reading for each in found] == [each.reading for each in sent]
    assert [each.age_s for each in found] == [pytest.approx(2, abs=1), pytest.approx(4, abs=1)]


async def test_who_does_not_lead_publishes_nothing(store: Connection) -> None:
    """A frozen leader wakes, and its readings are of another time."""
    fence = await elected(store, "a")

    assert not await samples.publish(store, SEAT, "b", fence, [Sample(reading(), 0.0)])
    assert not await samples.publish(store, SEAT, "a", fence + 1, [Sample(reading(), 0.0)])
    assert await samples.published(store, SEAT) == []


async def test_a_sample_of_a_time_to_come_is_of_no_known_age(store: Connection) -> None:
    """A replica took over whose clock is behind: what looks new may be as old as it likes."""
    seconds, _ = await store.client.time()
    written = (int(seconds) + 3600) * 1000
    data = msgspec.json.encode({"samples": [Sample(reading(), 0.0)]})
    key = "millstream:{scheduler}:samples:default,mail"
    await store.client.set(key, b"%d %s" % (written, data))
    assert await samples.published(store, SEAT) == []

    await store.client.set(key, b"%d %s" % (written - 3600_000, data))
    assert len(await samples.published(store, SEAT)) == 1


async def test_a_sample_of_another_shape_is_refused_and_ends_nothing(store: Connection) -> None:
    """Two releases run side by side during an upgrade."""
    await store.client.set("millstream:{scheduler}:samples:default,mail", '1 {"samples": 7}')

    with pytest.raises(StoreError, match="cannot be read"):
        await samples.published(store, SEAT)


async def test_what_was_published_does_not_stay_for_ever(store: Connection) -> None:
    fence = await elected(store, "a")
    await samples.publish(store, SEAT, "a", fence, [Sample(reading(), 0.0)])

    assert 0 < await store.client.pttl("millstream:{scheduler}:samples:default,mail") <= 3_600_000


async def test_every_replica_knows_what_the_leader_has_measured(store_url: str) -> None:
    """An autoscaler may ask any of them."""
    known = [Readings(["default"], stale_s=30, mono=anyio.current_time) for _ in range(3)]
    async with replicas(store_url, lease=3, sample=0.05) as crew:
        for each in known:
            crew.start(parts={"readings": each})
        await crew.until_led()
        with anyio.fail_after(10):
            for each in known:
                while each.last("default") is None:
                    await each.changed()

        assert {each.fresh("default").sampled.queue for each in known} == {"default"}
        assert sum(x.leading for x in crew) == 1
