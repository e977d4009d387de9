"""The master of a sentinel dies, or is demoted, while runs go on: what was accepted ends.

Replication is not waited for by Redis, so the test waits for it before each failover: what was
acknowledged then is at the replica. What happens afterwards may be lost, and is done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream import Enqueue, SyncClient
from millstream.client import SyncRun
from tests.arranged import Guarded
from tests.processes.effects import BEGUN, DONE
from tests.processes.fleet import Fleet, wait_until
from tests.servers import RedisServer


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """A master, its replica, and a sentinel."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with Guarded() as guarded:
        yield guarded


@pytest.mark.slow
def test_runs_live_through_the_death_and_the_demotion_of_a_master(
    guarded: Guarded, tmp_path: Path
) -> None:
    """Workers and clients find the new master by themselves, and go on where the runs were."""
    first, second = guarded.servers
    with (
        Fleet(tmp_path, guarded.url, lease=1.0) as fleet,
        SyncClient(guarded.url, patience=30) as client,
    ):
        workers = fleet.start(2)
        runs = _enqueue(client, "a")
        _under_way(fleet, 40)
        assert guarded.copied(first)
        first.kill()
        # Nobody answers yet: the client insists.
        runs += _enqueue(client, "b")
        guarded.until_master(second)
        for run in runs:
            assert run.result(timeout=40) == list(range(8))

        # The old master comes back and follows; then it is master again, in good order.
        first.restart()
        guarded.follow(first, second)
        runs = _enqueue(client, "c")
        _under_way(fleet, 40)
        assert guarded.copied(second)
        guarded.hand_over()
        guarded.until_master(first)
        runs += _enqueue(client, "d")
        for run in runs:
            assert run.result(timeout=40) == list(range(8))

        assert all(worker.alive for worker in workers), "nobody was restarted"
        assert {worker.probe("/ready") for worker in workers} == {200}
        ended = {x["run_id"] for worker in workers for x in worker.events
                 if x["event"] == "run_settled" and x["state"] == "completed"}  # fmt: skip
        assert {f"{part}{n}" for part in "abcd" for n in range(15)} <= ended


def _enqueue(client: SyncClient, part: str) -> list[SyncRun]:
    asked = [
        Enqueue("chain", {"steps": 8, "pause": 0.1}, id=f"{part}{number}") for number in range(15)
    ]
    return list(client.enqueue_many(asked))


def _under_way(fleet: Fleet, steps: int) -> None:
    seen = len(fleet.effects.all(BEGUN))
    wait_until(lambda: len(fleet.effects.all(DONE)) > seen + steps, 20, "the runs are under way")
