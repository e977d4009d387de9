"""A worker that dies or leaves costs its runs seconds, and nothing else.

The promises, in seconds: what a killed worker held goes on within 12 s with the defaults, within
2 s with a lease of one. What a worker that is told to stop cannot end within its grace goes on at
once, since it is handed back. Times are measured between the kill and the next step's first line
in the effect log, by one clock.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from millstream import Enqueue, SyncClient
from millstream.model.run import RunState
from tests.processes.effects import BEGUN, DONE, Effect
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.processes.ledger import LANE
from tests.servers import RedisServer


def busiest(fleet: Fleet) -> WorkerProcess:
    """Return the worker in whose hands most of the newest steps were."""
    newest = {effect.run: effect.pid for effect in fleet.effects.all(BEGUN)}
    alive = {worker.pid for worker in fleet.workers if worker.alive}
    counts = Counter(pid for pid in newest.values() if pid in alive)
    return fleet.of(counts.most_common(1)[0][0])


def runs_of(fleet: Fleet, worker: WorkerProcess) -> set[str]:
    """Return the runs whose newest step is in a worker's hands."""
    newest = {effect.run: effect.pid for effect in fleet.effects.all(BEGUN)}
    return {run for run, pid in newest.items() if pid == worker.pid}


def gone_on(fleet: Fleet, runs: set[str], without: int, since: float) -> dict[str, Effect]:
    """Return the first step of each run that another worker began after a moment."""
    first: dict[str, Effect] = {}
    for effect in fleet.effects.all(BEGUN):
        if effect.run in runs and effect.pid != without and effect.at > since:
            first.setdefault(effect.run, effect)
    return first


def hold(server: RedisServer) -> bytes:
    """Return until when nobody reclaims: it moves when no sweep came for half a lease."""
    with server.client() as client:
        return bytes(client.hget(LANE.meta, "hold") or b"")


def seconds_after_a_kill(fleet: Fleet, limit: float) -> float:
    """Kill the busiest worker just after it renewed; return when its last run had gone on."""
    worker = busiest(fleet)
    renewals = worker.log.count('"lease_renewed"')
    wait_until(lambda: worker.log.count('"lease_renewed"') > renewals, 20, "a renewal")
    runs = runs_of(fleet, worker)
    assert runs
    killed = worker.kill()
    wait_until(
        lambda: len(gone_on(fleet, runs, worker.pid, killed)) == len(runs),
        limit + 5,
        f"the {len(runs)} runs of a killed worker go on elsewhere",
    )
    return max(x.at for x in gone_on(fleet, runs, worker.pid, killed).values()) - killed


def test_with_a_lease_of_a_second_runs_go_on_within_two(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """A killed worker's runs are elsewhere within 2 s, whoever is killed, and the worst counts.

    What does not count is a kill while the machine starved the sweepers for half a lease.
    """
    fleet.start(4, concurrency=20)
    asked = [Enqueue("chain", {"steps": 1000, "pause": 0.05}) for _ in range(30)]
    runs = client.enqueue_many(asked)
    wait_until(lambda: len(fleet.effects.all(BEGUN)) > 60, 10, "the runs are under way")

    took: list[float] = []
    for _ in range(6):
        before = hold(server)
        seconds = seconds_after_a_kill(fleet, 2.0)
        if hold(server) == before:
            took.append(seconds)
        if len(took) == 2:
            break
        fleet.start(1, concurrency=20)

    print(f"\nlease 1 s: killed to next step, worst of each kill: {[round(x, 2) for x in took]} s")
    assert took
    assert max(took) <= 2.0
    assert {run.status().attempt for run in runs} == {1}


@pytest.mark.slow
def test_with_the_defaults_runs_go_on_within_twelve(
    server: RedisServer, client: SyncClient, tmp_path: Path
) -> None:
    """The same with the settings that everybody has."""
    with Fleet(tmp_path, server.url) as fleet:
        fleet.start(4)
        client.enqueue_many([Enqueue("chain", {"steps": 10_000, "pause": 0.2}) for _ in range(50)])
        wait_until(lambda: len(fleet.effects.all(BEGUN)) > 60, 10, "the runs are under way")

        took = [seconds_after_a_kill(fleet, 12.0) for _ in range(3)]

    print(f"\ndefaults: killed to next step, worst of each kill: {[round(x, 2) for x in took]} s")
    assert max(took) <= 12.0


def test_short_runs_end_within_the_grace(fleet: Fleet, client: SyncClient) -> None:
    """SIGTERM stops the taking, not the running: what ends in time ends where it is."""
    (worker,) = fleet.start()
    runs = client.enqueue_many([Enqueue("chain", {"steps": 5, "pause": 0.1}) for _ in range(20)])
    wait_until(lambda: len(fleet.effects.all(BEGUN)) >= 20, 10, "all have begun")

    told = worker.terminate()
    wait_until(lambda: worker.probe("/ready") == 503, 5, "it is not ready any more")
    late = client.enqueue("chain", {"steps": 1})

    assert worker.exit_code(10) == 0
    assert time.monotonic() - told < 5
    assert {run.status().state for run in runs} == {RunState.COMPLETED}
    assert fleet.effects.repeated() == 0
    assert late.status().state is RunState.QUEUED


def test_what_does_not_end_in_time_goes_on_elsewhere_at_once(
    fleet: Fleet, client: SyncClient
) -> None:
    """After the grace a run is handed back: nobody waits for a lease, and no attempt is used."""
    (leaving,) = fleet.start(grace=0.3)
    runs = client.enqueue_many([Enqueue("chain", {"steps": 8, "pause": 0.5}) for _ in range(10)])
    wait_until(lambda: len(fleet.effects.all(DONE)) >= 20, 10, "two steps of each are recorded")
    fleet.start()

    told = leaving.terminate()
    assert leaving.exit_code(5) == 0
    ids = {run.id for run in runs}
    wait_until(lambda: len(gone_on(fleet, ids, leaving.pid, told)) == 10, 5, "all go on")
    took = max(x.at for x in gone_on(fleet, ids, leaving.pid, told).values()) - told
    for run in runs:
        assert run.result(timeout=20) == list(range(8))

    print(f"\ngrace 0.3 s: told to next step elsewhere, worst run: {took:.2f} s")
    assert took < 0.3 + 1.0  # less than the lease: it was not waited for
    statuses = [run.status() for run in runs]
    assert {(status.attempt, status.crashes) for status in statuses} == {(1, 0)}
    # One step of each run at most was under way, and nothing else happened twice.
    assert fleet.effects.repeated() <= 10
    assert fleet.effects.after_their_record() == []


def test_a_run_that_does_not_let_go_keeps_no_worker_from_leaving(
    fleet: Fleet, client: SyncClient
) -> None:
    """It swallows every cancellation: the process waits a few seconds for it, not for ever."""
    (leaving,) = fleet.start(grace=0.1)
    run = client.enqueue("clings")
    wait_until(lambda: fleet.effects.all(BEGUN, run.id), 10, "it is under way")

    leaving.terminate()

    assert leaving.exit_code(20) == 0
    assert leaving.events[-1]["event"] == "worker_stopped"
    # It was handed back: nobody died, and nobody has to find that out.
    status = run.status()
    assert (status.state, status.crashes, status.attempt) == (RunState.QUEUED, 0, 1)


def test_a_second_signal_hands_back_at_once(fleet: Fleet, client: SyncClient) -> None:
    """An operator who insists does not wait for the grace."""
    (leaving,) = fleet.start(grace=60)
    run = client.enqueue("chain", {"steps": 2, "pause": 2.0})
    wait_until(lambda: fleet.effects.all(BEGUN), 10, "it has begun")

    leaving.terminate()
    wait_until(lambda: leaving.probe("/ready") == 503, 5, "it is leaving")
    assert leaving.alive
    again = leaving.terminate()

    assert leaving.exit_code(5) == 0
    assert time.monotonic() - again < 2
    assert run.status().state is RunState.QUEUED
    fleet.start()
    assert run.result(timeout=20) == [0, 1]
    assert run.status().attempt == 1


@pytest.mark.slow
def test_a_worker_leaves_although_redis_is_away(
    fleet: Fleet, client: SyncClient, server: RedisServer
) -> None:
    """It cannot hand back what it holds: the lease runs out, and others take it."""
    (leaving,) = fleet.start(grace=0.2)
    run = client.enqueue("chain", {"steps": 2, "pause": 1.0})
    wait_until(lambda: fleet.effects.all(BEGUN), 10, "it has begun")
    server.kill()

    told = leaving.terminate()
    assert leaving.exit_code(25) == 0
    took = time.monotonic() - told

    print(f"\ngrace 0.2 s and no Redis: told to gone: {took:.1f} s")
    # The grace, five seconds to hand back what is held, and a few to close.
    assert took < 10
    server.restart()
    fleet.start()
    assert run.result(timeout=20) == [0, 1]
    assert run.status().attempt == 1


def test_a_worker_that_never_found_redis_leaves_when_told(
    fleet: Fleet, server: RedisServer
) -> None:
    """It waits for Redis as long as it takes, is alive and not ready, and leaves in good order."""
    server.kill()
    worker = fleet.launch()
    wait_until(lambda: "health on port" in worker.log, 20, "the probes answer")
    wait_until(lambda: '"store_failed"' in worker.log, 20, "it has asked for Redis")

    assert worker.probe("/health") == 200
    assert worker.probe("/ready") == 503
    worker.terminate()

    assert worker.exit_code(5) == 0
