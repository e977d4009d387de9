"""Redis goes away, falls silent, forgets, refuses: the workers wait, rebuild and go on.

No call that is under way is aborted for it, and nobody's runs are given to others. Readiness is
red meanwhile; liveness is not, since killing a worker would mend nothing.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from millstream import Enqueue, SyncClient
from millstream.client import SyncRun
from millstream.errors import StoreFull
from tests.processes.conftest import LEASE_S
from tests.processes.effects import BEGUN, DONE
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.processes.proxy import Proxy
from tests.servers import RedisServer


def under_way(fleet: Fleet, client: SyncClient, pause: float, count: int = 6) -> list[SyncRun]:
    """Start runs whose first step takes a while; return once all steps have begun."""
    begun = len(fleet.effects.all(BEGUN))
    asked = [Enqueue("chain", {"steps": 2, "pause": pause}) for _ in range(count)]
    runs = client.enqueue_many(asked)
    wait_until(lambda: len(fleet.effects.all(BEGUN)) >= begun + count, 10, "all have begun")
    return runs


def all_well(fleet: Fleet, runs: list[SyncRun], seconds: float) -> None:
    """Every run ends, in one go: nothing was taken from anybody, and nothing happened twice."""
    for run in runs:
        assert run.result(timeout=seconds) == [0, 1]
        status = run.status()
        assert (status.attempt, status.crashes) == (1, 0)
    assert fleet.effects.repeated() == 0
    assert len(fleet.effects.all(DONE)) == len(fleet.effects.all(BEGUN))


def ready_again(worker: WorkerProcess) -> None:
    """Return once a worker is ready."""
    wait_until(lambda: worker.probe("/ready") == 200, 20, "it is ready again")


def test_redis_frozen_for_longer_than_the_lease(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """All leases run out at once while Redis stands still: nobody reclaims, all go on."""
    workers = fleet.start(2, concurrency=4)
    runs = under_way(fleet, client, pause=2.5 * LEASE_S)

    server.freeze()
    frozen = time.monotonic()
    wait_until(lambda: len(fleet.effects.all(DONE)) == 6, 10, "the calls under way end")
    wait_until(lambda: time.monotonic() > frozen + 2.5 * LEASE_S, 10, "leases have run out")
    assert [worker.probe("/health") for worker in workers] == [200, 200]
    server.thaw()

    all_well(fleet, runs, 20)


@pytest.mark.slow
def test_redis_silent_for_longer_than_any_command_waits(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """What was sent and not answered is sent again; Redis then gets both, in any order."""
    workers = fleet.start(2, concurrency=40, liveness=3)
    runs = under_way(fleet, client, pause=1.0, count=80)

    for _ in range(2):
        server.freeze()
        wait_until(lambda: {x.probe("/ready") for x in workers} == {503}, 15, "they see it")
        for _ in range(30):
            assert {worker.probe("/health") for worker in workers} == {200}
            time.sleep(0.1)
        server.thaw()
        for worker in workers:
            ready_again(worker)
        runs += under_way(fleet, client, pause=1.0, count=20)

    all_well(fleet, runs, 30)


@pytest.mark.parametrize("how", ["orderly", "killed"])
def test_redis_restarted(fleet: Fleet, client: SyncClient, server: RedisServer, how: str) -> None:
    """Calls under way outlive it; readiness tells of it, liveness does not."""
    workers = fleet.start(2, concurrency=4, liveness=1.0)
    runs = under_way(fleet, client, pause=3 * LEASE_S)

    if how == "killed":
        server.kill()
    else:
        with server.client() as redis:
            redis.shutdown()
        wait_until(lambda: not server.alive, 10, "Redis has left")
    wait_until(lambda: {x.probe("/ready") for x in workers} == {503}, 10, "they see it")
    away = time.monotonic()
    while time.monotonic() < away + 2 * LEASE_S:
        assert {worker.probe("/health") for worker in workers} == {200}
        time.sleep(0.05)
    server.restart()

    all_well(fleet, runs, 20)
    for worker in workers:
        ready_again(worker)


def test_half_open_connections(server: RedisServer, client: SyncClient, tmp_path: Path) -> None:
    """Connections that fall silent and stay open cost seconds, and no lease."""
    with Proxy(server.port) as proxy, Fleet(tmp_path, server.url, lease=LEASE_S) as fleet:
        (worker,) = fleet.start(redis=proxy.url)
        runs = under_way(fleet, client, pause=2 * LEASE_S)
        (other,) = fleet.start()

        assert proxy.fall_silent() >= 3
        silent = time.monotonic()

        all_well(fleet, runs, 30)
        print(
            f"\nhalf-open: runs of two steps of 2 s ended after {time.monotonic() - silent:.1f} s"
        )
        assert {x.pid for x in fleet.effects.all(BEGUN)} == {worker.pid}
        # Alone it takes new work again.
        other.terminate()
        assert other.exit_code(10) == 0
        assert client.enqueue("chain", {"steps": 2}).result(timeout=15) == [0, 1]


def test_connections_that_are_reset(
    server: RedisServer, client: SyncClient, tmp_path: Path
) -> None:
    """Whatever is cut in the middle is said again, and counts once."""
    # A busy machine may need some tries to get a renewal through between two resets.
    with Proxy(server.port) as proxy, Fleet(tmp_path, proxy.url, lease=3 * LEASE_S) as fleet:
        fleet.start(2, concurrency=10)
        asked = [Enqueue("chain", {"steps": 30, "pause": 0.02}) for _ in range(60)]
        runs = client.enqueue_many(asked)
        resets = 0
        while not all(run.status().state.final for run in runs[-5:]):
            resets += proxy.reset()
            time.sleep(0.15)

        for run in runs:
            assert run.result(timeout=30) == list(range(30))
        print(f"\n{resets} connections reset; {fleet.effects.repeated()} effects repeated")
        assert {(run.status().attempt, run.status().crashes) for run in runs} == {(1, 0)}
        assert fleet.effects.after_their_record() == []
        assert fleet.effects.repeated() == 0
        assert all(worker.alive for worker in fleet.workers)


def test_a_flushed_redis(fleet: Fleet, client: SyncClient, server: RedisServer) -> None:
    """What was in Redis is gone; what comes after is served: the groups are made again."""
    workers = fleet.start(2)
    lost = under_way(fleet, client, pause=0.5)
    for idle in (False, True):
        if idle:
            wait_until(lambda: len(fleet.effects.all(DONE)) >= 6, 10, "the flushed have ended")
        server.flush()

        for _ in range(3):
            runs = client.enqueue_many([Enqueue("chain", {"steps": 2}) for _ in range(20)])
            for run in runs:
                assert run.result(timeout=10) == [0, 1]
    assert all(worker.alive for worker in workers)
    assert lost


def test_a_master_that_is_demoted_and_promoted(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """``READONLY`` and ``UNBLOCKED`` are waited out like any absence."""
    workers = fleet.start(2, concurrency=4)
    at_once = {"repl-diskless-sync-delay": "0"}
    with RedisServer(config=at_once) as other, server.client() as redis:
        redis.config_set("repl-diskless-sync-delay", 0)
        runs = under_way(fleet, client, pause=LEASE_S)
        # The other one follows first, so that it has everything when it becomes the master.
        with other.client() as following:
            following.replicaof("127.0.0.1", server.port)
            wait_until(
                lambda: following.info("replication")["master_link_status"] == "up",
                10,
                "it follows",
            )
            following.replicaof("NO", "ONE")
        redis.replicaof("127.0.0.1", other.port)
        wait_until(lambda: {x.probe("/ready") for x in workers} == {503}, 15, "they see it")
        assert [worker.probe("/health") for worker in workers] == [200, 200]
        redis.replicaof("NO", "ONE")

        for run in runs:
            assert run.result(timeout=20) == [0, 1]
        assert {run.status().crashes for run in runs} == {0}
        for worker in workers:
            ready_again(worker)
        assert client.enqueue("chain", {"steps": 2}).result(timeout=10) == [0, 1]
        assert all(worker.alive for worker in workers)


@pytest.mark.slow
def test_a_full_redis(fleet: Fleet, client: SyncClient, server: RedisServer) -> None:
    """A caller is refused by name; runs keep what they have done, and go on when there is room."""
    workers = fleet.start()
    runs = under_way(fleet, client, pause=LEASE_S)
    workers += fleet.start()  # this one has nothing to write, and must tell all the same
    with server.client() as redis:
        redis.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            client.enqueue("chain", {"steps": 2})
        wait_until(lambda: {x.probe("/ready") for x in workers} == {503}, 10, "they say so")
        # Longer than the lease, which cannot be renewed either.
        full = time.monotonic()
        while time.monotonic() < full + 2 * LEASE_S:
            assert {worker.probe("/health") for worker in workers} == {200}
            time.sleep(0.05)
        redis.config_set("maxmemory", 0)

    all_well(fleet, runs, 20)
    for worker in workers:
        ready_again(worker)
    assert client.enqueue("chain", {"steps": 2}).result(timeout=10) == [0, 1]
