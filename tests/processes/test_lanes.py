"""A queue of several lanes: on a cluster whose masters share them, and while their number changes.

The cluster is a real one. Every script must stay in the slot of its lane, every walk must ask the
right master, and nobody may need two lanes at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import Enqueue, RunCancelled, RunFailed, SyncClient
from millstream.store.keys import Lane
from tests.arranged import Cluster
from tests.processes.effects import BEGUN, DONE
from tests.processes.fleet import Fleet, wait_until
from tests.servers import RedisServer

IDS = [f"run-{number}" for number in range(500)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three masters."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with Cluster() as cluster:
        yield cluster


def test_the_main_way_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Enqueue, steps, delay, sleep, retry, cancel, dead letters, results, and a worker that dies.

    The lanes stand on every master, so whatever leaves its slot is refused.
    """
    with (
        Fleet(tmp_path, cluster.url, lease=1.0, park_after=0.1) as fleet,
        SyncClient(cluster.url, patience=20) as client,
    ):
        client.resize("default", lanes=6)
        assert len({cluster.owner(Lane("default", n).meta).port for n in range(6)}) == 3
        victim, _ = fleet.start(2)

        chains = client.enqueue_many(
            [Enqueue("chain", {"steps": 6, "pause": 0.1}) for _ in range(30)]
        )
        late = client.enqueue("chain", {"steps": 1}, delay=0.5)
        parked = client.enqueue("asleep", {"seconds": 0.5})
        stubborn = client.enqueue("stubborn")
        hopeless = client.enqueue("hopeless")
        endless = client.enqueue("chain", {"steps": 9999, "pause": 0.05}, priority="high")
        wait_until(lambda: len(fleet.effects.all(DONE)) >= 60, 20, "the runs are under way")
        victim.kill()
        endless.cancel()

        for run in chains:
            assert run.result(timeout=30) == list(range(6))
        assert late.result(timeout=20) == [0]
        assert parked.result(timeout=20) == "awake"
        assert stubborn.result(timeout=20) == 0
        with pytest.raises(RunCancelled):
            endless.result(timeout=20)
        with pytest.raises(RunFailed, match="not yet"):
            hopeless.result(timeout=20)
        assert [status.id for status in client.dead()] == [hopeless.id]
        hopeless.retry()
        assert hopeless.result(timeout=20) == 0
        assert client.dead() == []

        assert stubborn.status().attempt == 2
        assert {run.status().attempt for run in chains} == {1}
        assert len(client.list(limit=100)) == 35
        depth = client.depth()
        assert (depth.waiting, depth.running, depth.scheduled, depth.parked) == (0, 0, 0, 0)


def test_a_resize_among_enqueues_loses_and_doubles_nothing(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """The number of lanes changes three times while runs are accepted, held and ended."""
    fleet.start(2)
    _enqueue_among_resizes(fleet, client, server.url)


@pytest.mark.slow
def test_a_resize_among_enqueues_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """The same where every lane may stand on another master."""
    with Fleet(tmp_path, cluster.url, lease=1.0) as fleet, SyncClient(cluster.url) as client:
        fleet.start(2)
        _enqueue_among_resizes(fleet, client, cluster.url)


def test_a_worker_that_starts_serves_what_was_accepted_before_a_resize(
    fleet: Fleet, client: SyncClient
) -> None:
    """A queue with fewer lanes has runs in those that are gone from its layout."""
    client.resize("default", lanes=5)
    runs = client.enqueue_many([Enqueue("chain", {"steps": 1, "pause": 0}) for _ in range(40)])
    client.resize("default", lanes=1)

    fleet.start()

    for run in runs:
        assert run.result(timeout=20) == [0]


def _enqueue_among_resizes(fleet: Fleet, client: SyncClient, url: str) -> None:
    wanted = [Enqueue("chain", {"steps": 1, "pause": 0.01}, id=run_id) for run_id in IDS]
    resizes = {100: 3, 220: 2, 400: 5}
    with SyncClient(url) as other:  # whoever resizes is not who enqueues
        for at in range(0, len(wanted), 20):
            if at in resizes:
                other.resize("default", lanes=resizes[at])
            made = client.enqueue_many(wanted[at : at + 20])
            assert all(run.created for run in made)

    runs = [client.run(run_id) for run_id in IDS]
    for run in runs:
        assert run.result(timeout=30) == [0]
    again = client.enqueue_many(wanted)

    assert not any(run.created for run in again)
    assert len(fleet.effects.all(BEGUN)) == len(IDS)
    assert fleet.effects.repeated() == 0
    assert len(client.list(limit=1000)) == len(IDS)
