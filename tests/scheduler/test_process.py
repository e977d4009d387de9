"""Real scheduler processes, real signals, a real Redis that goes away and comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.processes.fleet import ROOT, wait_until
from tests.servers import RedisServer


class SchedulerProcess:
    """One scheduler process."""

    def __init__(self, log: Path, url: str, **settings: Any) -> None:
        given = {
            "redis": url, "http": 0, "metrics": 0, "host": "127.0.0.1", "log_format": "json",
            "log_level": "DEBUG", "lease": 1.0, "sample": 0.1, **settings,
            "parent": forks.nursery().process.pid,
        }  # fmt: skip
        self._file = log.open("wb")
        self._path = log
        self.process = forks.nursery().start(
            ["tests.scheduler.child", json.dumps(given)],
            cwd=ROOT, env=os.environ, stdout=self._file, stderr=self._file,
        )  # fmt: skip

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._path.read_text("utf-8", "replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it logged, as far as the lines are whole."""
        lines = [x for x in self.log.splitlines() if x.startswith("{") and x.endswith("}")]
        return [json.loads(line) for line in lines]

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        said = [x["leading"] for x in self.events if x["event"] == "leader_changed"]
        return bool(said and said[-1])

    def get(self, path: str, server: str = "health") -> tuple[int, str]:
        """Return the status and the text that it answers."""
        (port,) = wait_until(
            lambda: re.findall(rf"{server} on port (\d+)", self.log), 20, f"a port:\n{self.log}"
        )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, path: str) -> int:
        """Return the status that a probe answers."""
        return self.get(path)[0]

    def metric(self, name: str) -> float | None:
        """Return the value of a series; None when there is none."""
        text = self.get("/metrics", "metrics")[1]
        found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[0]) if found else None

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """Return once it is so."""

        def checked() -> Any:
            assert self.process.poll() is None, f"it ended:\n{self.log}"
            return condition()

        try:
            wait_until(checked, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from error

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._file.close()


Start = Callable[..., SchedulerProcess]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of one test, to be killed."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    with RedisServer() as server:
        yield server


@pytest.fixture
def start(server: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """Starts schedulers, and ends them with the test."""
    started: list[SchedulerProcess] = []

    def begin(**settings: Any) -> SchedulerProcess:
        log = tmp_path / f"scheduler-{len(started)}.log"
        started.append(SchedulerProcess(log, server.url, **settings))
        return started[-1]

    yield begin
    for process in started:
        process.close()


def pair(start: Start, **settings: Any) -> tuple[SchedulerProcess, SchedulerProcess]:
    """Start two; return the one that leads, and the other."""
    leader = start(**settings)
    leader.until(lambda: leader.leads, 20, "the first leads")
    other = start(**settings)
    other.until(lambda: other.status("/ready") == 200, 20, "the other is ready")
    assert not other.leads
    return leader, other


def test_when_the_leader_is_killed_the_other_leads(start: Start) -> None:
    """Within a lease; and then its metrics tell of the queues."""
    leader, other = pair(start)
    leader.process.kill()
    killed = time.monotonic()
    other.until(lambda: other.leads, 5, "the other leads")

    assert time.monotonic() - killed < 1.0 + 0.1 + 1.0
    other.until(lambda: other.metric("millstream_leader") == 1, 5, "the metric says so")
    other.until(
        lambda: other.metric('millstream_queue_waiting{queue="default"}') == 0, 5, "a reading"
    )


def test_a_leader_that_is_told_to_stop_hands_over_at_once(start: Start) -> None:
    """SIGTERM, as in a rolling update; its lease would have lasted for minutes."""
    leader, other = pair(start, lease=300)
    leader.process.send_signal(signal.SIGTERM)

    assert leader.process.wait(5) == 0
    other.until(lambda: other.leads, 3, "the other leads")
    assert not leader.leads
    assert "Traceback" not in leader.log


def test_a_follower_that_is_told_to_stop_leaves_the_leader_alone(start: Start) -> None:
    leader, other = pair(start)
    other.process.send_signal(signal.SIGINT)

    assert other.process.wait(5) == 0
    assert leader.leads
    assert [x["leading"] for x in leader.events if x["event"] == "leader_changed"] == [False, True]


def test_a_frozen_leader_is_followed_and_does_not_lead_when_it_wakes(start: Start) -> None:
    """Its term ran out while it did not even know of the time."""
    leader, other = pair(start)
    leader.process.send_signal(signal.SIGSTOP)
    other.until(lambda: other.leads, 5, "the other leads")
    leader.process.send_signal(signal.SIGCONT)
    leader.until(lambda: not leader.leads, 5, "it has noticed")

    assert other.leads
    assert leader.status("/ready") == 200
    assert leader.metric('millstream_queue_waiting{queue="default"}') is None


def test_redis_away_is_not_ready_and_yet_alive(server: RedisServer, start: Start) -> None:
    """Nothing is gained by killing it; it goes on by itself when Redis is back."""
    leader = start()
    leader.until(lambda: leader.leads and leader.status("/ready") == 200, 20, "it leads")
    assert leader.status("/startup") == 200
    server.kill()
    leader.until(lambda: leader.status("/ready") == 503, 5, "it is not ready")
    leader.until(lambda: not leader.leads, 5, "it leads no more")
    assert leader.status("/health") == 200
    assert "cannot reach Redis" in leader.get("/ready")[1]
    server.restart()

    leader.until(lambda: leader.leads and leader.status("/ready") == 200, 10, "it leads again")
    assert {x["event"] for x in leader.events} >= {"store_failed", "store_recovered"}
    assert "Traceback" not in leader.log


def test_a_redis_that_hangs_costs_the_lead_and_nothing_else(
    server: RedisServer, start: Start
) -> None:
    """No connection is closed, nothing is answered: the worst kind of away."""
    leader = start()
    leader.until(lambda: leader.leads, 20, "it leads")
    server.freeze()
    leader.until(lambda: not leader.leads, 5, "it leads no more")
    assert leader.status("/health") == 200
    server.thaw()

    leader.until(lambda: leader.leads and leader.status("/ready") == 200, 10, "it leads again")
    assert "Traceback" not in leader.log


def test_it_starts_while_redis_is_away(server: RedisServer, start: Start) -> None:
    """In what order a cluster comes up is nobody's business."""
    server.kill()
    early = start()
    early.until(lambda: early.status("/health") == 200, 20, "it is alive")
    assert early.status("/ready") == 503
    server.restart()

    early.until(lambda: early.leads and early.status("/ready") == 200, 10, "it leads")


def test_a_redis_that_may_lose_runs_is_refused(server: RedisServer, start: Start) -> None:
    """It evicts keys: better not to start than to lose what was accepted."""
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    refused = start()

    assert refused.process.wait(20) != 0
    assert "set maxmemory-policy to noeviction" in refused.log
