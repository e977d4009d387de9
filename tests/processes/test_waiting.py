"""Runs that wait, and runs that wait for others, with real workers that die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from millstream import Enqueue, SyncClient
from millstream.store.keys import Lane
from tests.processes.effects import DONE
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.servers import RedisServer


def resident_mib(worker: WorkerProcess) -> float:
    """How much memory a process holds."""
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text("utf-8").split()[1])
    return pages * 4096 / 2**20


@pytest.fixture(scope="module")
def quick_server(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis without a disk: what is measured is memory."""
    redis_server.flush()
    yield redis_server
    redis_server.flush()


@pytest.mark.parametrize(
    "count", [2_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_parked_runs_cost_a_worker_nothing(
    quick_server: RedisServer, tmp_path: Path, count: int
) -> None:
    """They hold no slot, no task and no memory; and a signal wakes one of them at once."""
    quick_server.flush()
    url = quick_server.url
    with SyncClient(url, patience=30) as client, Fleet(tmp_path, url) as fleet:
        (worker,) = fleet.start(1)
        park(client, range(count // 10))
        memory, used = resident_mib(worker), used_bytes(quick_server)
        park(client, range(count // 10, count))
        grown = resident_mib(worker) - memory
        each = (used_bytes(quick_server) - used) / (count * 0.9)
        depth = client.depth()
        assert (depth.parked, depth.running, depth.waiting) == (count, 0, 0)

        began = time.monotonic()
        run = client.run(f"patient-{count // 2}")
        run.signal("go", {"at": count})
        assert run.result(timeout=20) == {"at": count}
        woke = time.monotonic() - began
        print(f"\n{count:,} parked: worker +{grown:.1f} MiB, {each:.0f} bytes each, {woke:.3f} s")
        # What a task and its context take, a hundred times over, would be seen.
        assert grown < 12
        assert each < 1_000
        assert client.depth().parked == count - 1


def park(client: SyncClient, numbers: range) -> None:
    """Enqueue runs that wait for a signal, and return when all of them are parked."""
    before = client.depth().parked
    for first in range(numbers.start, numbers.stop, 5_000):
        part = range(first, min(first + 5_000, numbers.stop))
        client.enqueue_many([Enqueue("patient", id=f"patient-{n}") for n in part])
    wanted = before + len(numbers)
    wait_until(lambda: client.depth().parked == wanted, 300, "all are parked", every=0.05)


def used_bytes(server: RedisServer) -> int:
    """How much memory Redis uses for what it holds."""
    with server.client() as client:
        return int(client.info("memory")["used_memory_dataset"])


def reached(fleet: Fleet, count: int) -> bool:
    """Whether so many effects are done."""
    return len(fleet.effects.all(DONE)) >= count


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_parent_of_thousands_survives_five_of_its_workers(
    server: RedisServer, fleet: Fleet, client: SyncClient
) -> None:
    """Each child is one run with one result, however often somebody dies in between."""
    count = 2_000
    fleet.start(2)
    parent = client.enqueue("family", {"count": count})
    for death in range(5):
        wait_until(partial(reached, fleet, (death + 1) * count // 8), 90, "children go on")
        next(worker for worker in fleet.workers if worker.alive).kill()
        fleet.launch()
    assert parent.result(timeout=120) == list(range(count))

    runs = {effect.run for effect in fleet.effects.all(DONE)}
    assert len(runs) == count
    with server.client() as redis:
        ended = redis.zcard(Lane("default").ended)
        assert redis.xlen(Lane("default").outbox) == 0
    assert ended == count + 1
    repeated = fleet.effects.repeated(DONE)
    print(f"\n{repeated} effects were repeated by five deaths")
    assert repeated <= 5 * 100
