"""Slow is not dead: whoever renews keeps what it holds, however long it is deaf.

A loop that is blocked in Python or in a call that gives up the interpreter's lock costs no lease,
since a thread renews it; a loop that stays blocked past a bound turns liveness red instead. Code
that keeps the lock stops that thread too: then the lease is lost, and the fence keeps it harmless.
"""

from __future__ import annotations

import time

import pytest

from millstream import Enqueue, SyncClient
from tests.processes.conftest import LEASE_S
from tests.processes.effects import BEGUN, DONE
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.servers import RedisServer


def holder(fleet: Fleet, run: str, step: int) -> WorkerProcess:
    """Return the worker that has begun a step, once one has."""

    def found() -> list[int]:
        return [x.pid for x in fleet.effects.all(BEGUN, run) if x.step == step]

    return fleet.of(wait_until(found, 20, f"step {step} has begun")[0])


def blocked_for(seconds: float, fleet: Fleet, client: SyncClient) -> None:
    """Block one of two loops; nothing may be repeated, and the probes must tell."""
    fleet.start(2, liveness=1.0, concurrency=10)
    others = client.enqueue_many([Enqueue("chain", {"steps": 5, "pause": 0.2}) for _ in range(10)])
    run = client.enqueue("blocking", {"pause": seconds}, priority="high")
    worker = holder(fleet, run.id, 1)

    asked = time.monotonic()
    wait_until(lambda: worker.probe("/health") == 503, 5, "liveness is red")
    assert worker.probe("/ready") == 503
    # Both answers came while the loop was deaf, and long before it heard again.
    assert time.monotonic() - asked < 3
    assert not [x for x in fleet.effects.all(DONE, run.id) if x.step == 1]

    assert run.result(timeout=seconds + 20) == [0, 1, 2]
    wait_until(lambda: worker.probe("/health") == 200, 5, "liveness is green again")
    for other in others:
        assert other.result(timeout=20) == list(range(5))
    assert {x.pid for x in fleet.effects.all(BEGUN, run.id)} == {worker.pid}
    assert fleet.effects.repeated() == 0
    assert {x.status().crashes for x in [run, *others]} == {0}


def test_a_blocked_loop_keeps_its_runs(fleet: Fleet, client: SyncClient) -> None:
    """Four leases long it hears nothing, and loses nothing."""
    blocked_for(4 * LEASE_S, fleet, client)


@pytest.mark.slow
def test_a_loop_that_is_blocked_for_long_keeps_its_runs(fleet: Fleet, client: SyncClient) -> None:
    """Nor does it for thirty leases."""
    blocked_for(30 * LEASE_S, fleet, client)


@pytest.mark.slow
def test_holding_the_interpreter_loses_the_lease_and_no_more(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """The run goes on elsewhere meanwhile, and the one who woke up writes nothing."""
    fleet.start(2)
    run = client.enqueue("holding", {"pause": 15 * LEASE_S})
    deaf = holder(fleet, run.id, 1)

    # A starved machine may hold back for a lease or two; the one who holds on does so for fifteen.
    wait_until(lambda: run.status().state.final, 12 * LEASE_S, "it has ended elsewhere")
    assert not [x for x in fleet.effects.all(DONE, run.id) if x.pid == deaf.pid and x.step == 1]
    with server.client() as redis:
        key = f"millstream:{{default:0}}:run:{run.id}"
        journal = f"millstream:{{default:0}}:journal:{run.id}"
        ended = redis.hgetall(key), redis.hgetall(journal)
        wait_until(lambda: '"run_lost"' in deaf.log, 40, "it woke up and heard of it")
        assert (redis.hgetall(key), redis.hgetall(journal)) == ended

    assert run.result(timeout=5) == [0, 1, 2]
    begun = [(x.step, x.pid == deaf.pid) for x in fleet.effects.all(BEGUN, run.id)]
    assert begun == [(0, True), (1, True), (1, False), (2, False)]
    assert run.status().attempt == 1
    assert run.status().crashes == 1
    # It is none the worse for it.
    after = client.enqueue_many([Enqueue("chain", {"steps": 2}) for _ in range(40)])
    for each in after:
        assert each.result(timeout=20) == [0, 1]


@pytest.mark.slow
def test_a_run_of_sixty_leases_is_never_taken(fleet: Fleet, client: SyncClient) -> None:
    """How long a step takes has nothing to do with how long a worker may be silent."""
    fleet.start(3, lease=0.5)
    runs = client.enqueue_many([Enqueue("threaded", {"steps": 1, "pause": 30.0})] * 1)
    runs += client.enqueue_many([Enqueue("chain", {"steps": 1, "pause": 30.0}) for _ in range(9)])

    for run in runs:
        assert run.result(timeout=50) == [0]

    assert fleet.effects.repeated() == 0
    assert {run.status().crashes for run in runs} == {0}
