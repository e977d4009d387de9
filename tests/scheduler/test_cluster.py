"""A scheduler on a cluster: every script stays in its slot, and a walk asks the right node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millstream import Client, Schedule
from millstream.events import LaneCleaned, LaneSwept, QueueSampled, TickFired
from millstream.store.connection import Connection
from tests.scheduler.replicas import replicas
from tests.servers import RedisServer
from tests.store.bench import Bench


@pytest.fixture
def cluster() -> Iterator[RedisServer]:
    """A cluster of one node, which refuses whatever spans slots."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with RedisServer(config={"cluster-enabled": "yes"}) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                pass
        yield server


async def test_every_duty_is_done_on_a_cluster(cluster: RedisServer) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster.port}"
    store = Connection(url)
    bench = Bench(store)
    await bench.prepare()
    await bench.accept("lost")
    ((entry, _),) = await bench.redis.xrange(bench.lane.stream("normal"))
    await bench.redis.xdel(bench.lane.stream("normal"), entry)
    await bench.accept("due", delay_s=0.05)

    async with replicas(url, lease=0.6, sample=0.05) as crew:
        crew.start(2)
        told = crew.transcript
        await told.until(lambda: told.of(LaneSwept) and told.of(LaneCleaned))
        schedule = Schedule("s", "flow", every=1, queue="other")
        await Client(connection=store).schedules.create(schedule)
        await told.until(lambda: told.of(TickFired))
        seen = len(told)
        await told.until(lambda: [x for x in told[seen:] if isinstance(x, QueueSampled)])

    assert await bench.waiting() == [("resume", "lost"), ("normal", "due")]
    assert told.of(QueueSampled)[-1].waiting == 2
    await store.aclose()
