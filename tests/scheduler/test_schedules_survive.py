"""Two schedulers that are killed in turn, under a schedule of every second: nothing is lost."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from millstream import Schedule, SyncClient
from tests.processes.fleet import wait_until
from tests.scheduler.test_process import SchedulerProcess
from tests.servers import RedisServer

SECONDS = 60


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of this test."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with RedisServer() as server:
        yield server


@pytest.mark.slow
def test_each_tick_has_one_run_whoever_is_killed(server: RedisServer, tmp_path: Path) -> None:
    """The leader is killed every few seconds, at any point of what it does."""
    schedule = Schedule("second", "flow", every=1, overlap="allow", catch_up="all")  # type: ignore[arg-type]
    numbers = itertools.count()

    def start() -> SchedulerProcess:
        return SchedulerProcess(tmp_path / f"scheduler-{next(numbers)}.log", server.url)

    pair = [start(), start()]
    killed = 0
    try:
        with SyncClient(server.url) as client:
            first = client.schedules.create(schedule).upcoming[0]
            while time.time() < first + SECONDS:
                leader = wait_until(
                    lambda: next((each for each in pair if each.leads), None), 20, "one leads"
                )
                fired = client.schedules.get("second").progress.fired
                wait_until(partial(more_than, client, fired), 10, "it fires")
                # Somewhere within the next second, another place every time.
                time.sleep(0.07 * (killed % 14))
                leader.process.kill()
                leader.process.wait()
                leader.close()
                pair[pair.index(leader)] = start()
                killed += 1
            last = first + SECONDS - 1
            wait_until(
                lambda: (client.schedules.get("second").progress.last or 0) >= last, 20, "it fired"
            )
            client.schedules.pause("second")
            progress = client.schedules.get("second").progress
    finally:
        for each in pair:
            each.close()

    ticks = round((progress.last or 0) - first) + 1
    assert killed >= 5
    assert progress.fired == ticks
    assert progress.skipped == 0
    assert runs_of(server) == {schedule.run_id(first + n): 1 for n in range(ticks)}


def more_than(client: SyncClient, fired: int) -> bool:
    """Whether the schedule has fired more often than that."""
    return client.schedules.get("second").progress.fired > fired


def runs_of(server: RedisServer) -> Counter[str]:
    """How many entries the stream has for each run."""
    with server.client() as client:
        entries = client.xrange("millstream:{default:0}:stream:normal")
    return Counter(fields[b"id"].decode() for _, fields in entries)
