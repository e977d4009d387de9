"""Real schedulers, a queue of a million runs, and a Redis that goes away and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from millstream.store.keys import GROUP, Lane
from millstream_scheduler.readings import Readings
from tests.scheduler.kube import ApiServer, Papers
from tests.scheduler.replicas import Transcript
from tests.scheduler.test_gauge import agent
from tests.scheduler.test_metrics_api import DEMAND, EXTERNAL, Api
from tests.scheduler.test_process import SchedulerProcess
from tests.scheduler.test_readings import Clock
from tests.servers import RedisServer

WAITING = 1_000_000
WORKERS = 50
#: Each with its record, or the leader would clean it away.
_FILL = """
for n = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local entry = redis.call('XADD', KEYS[1], '*', 'id', n)
  redis.call('HSET', ARGV[1] .. n, 'state', 'queued', 'entry', entry)
end
"""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that remembers, with a million runs that wait and fifty workers that live."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    lane = Lane("default")
    with RedisServer() as server:
        with server.client(socket_timeout=60) as client:
            client.xgroup_create(lane.stream("normal"), GROUP, id="0", mkstream=True)
            for first in range(0, WAITING, WAITING // 20):
                last = first + WAITING // 20 - 1
                client.eval(_FILL, 1, lane.stream("normal"), lane.run(""), first, last)
            for number in range(WORKERS):
                token = f"worker-{number}"
                client.hset(lane.agents, token, msgspec.json.encode(agent(token, 100)))
                client.zadd(lane.leases, {token: 10**14})
            client.save()
        yield server


@pytest.fixture
async def pair(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[tuple[SchedulerProcess, Api]]]:
    """Two schedulers in front of one cluster, and the API of each."""
    papers = Papers(tmp_path)
    cluster = ApiServer(papers)
    started: list[SchedulerProcess] = []
    async with cluster.serving():
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        try:
            for number in range(2):
                log = tmp_path / f"{number}.log"
                process = SchedulerProcess(
                    log, server.url, sample=1.0, lease=10, metrics_api=0,
                    tls_cert=str(papers.certificate), tls_key=str(papers.key),
                    service_account=str(papers.account),
                )  # fmt: skip
                started.append(process)
            yield [(each, await api_of(each, papers, cluster)) for each in started]
        finally:
            for process in started:
                process.close()


async def api_of(process: SchedulerProcess, papers: Papers, cluster: ApiServer) -> Api:
    ports: list[str] = []

    def said() -> bool:
        ports[:] = [x for x in process.log.splitlines() if x.startswith("metrics API on port ")]
        return bool(ports)

    await until(said, 30, "a port")
    readings = Readings([], stale_s=0, mono=time.monotonic)
    return Api(papers, cluster, readings, Clock(), Transcript(), int(ports[0].split()[-1]))


async def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    with anyio.move_on_after(seconds):
        while True:
            found = condition()
            if found is True or (found and await found):
                return
            await anyio.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


async def wanted(api: Api, seen: list[Any]) -> int | None:
    """Return the demand that an API tells; None when it says that it does not know."""
    status, found, _ = await api.get(f"{EXTERNAL}/namespaces/shop/{DEMAND}")
    seen.append(found["items"][0]["value"] if status == 200 else status)
    return int(seen[-1]) if status == 200 else None


def calls(server: RedisServer) -> int:
    """How often it was called; what a script does in itself does not count."""
    with server.client() as client:
        stats: dict[str, Any] = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))


@pytest.mark.slow
async def test_a_million_runs_two_replicas_and_a_redis_that_goes_away(
    server: RedisServer, pair: list[tuple[SchedulerProcess, Api]]
) -> None:
    """Whichever is asked tells the same, at no cost for Redis; nobody ever makes up a number."""
    seen: list[Any] = []

    async def all_tell(expected: int | None) -> bool:
        return [await wanted(api, seen) for _, api in pair] == [expected, expected]

    await until(lambda: all_tell(WAITING), 30, "both tell of a million")
    assert sum(process.leads for process, _ in pair) == 1
    seen.clear()
    began, before = time.monotonic(), calls(server)
    for _ in range(50):
        assert await all_tell(WAITING)
        for process, _ in pair:
            await anyio.to_thread.run_sync(process.get, "/metrics", "metrics")
    asked, took = calls(server) - before, time.monotonic() - began
    # Their clocks make them call it, and go on doing so when nobody asks for as long.
    before = calls(server)
    await anyio.sleep(took)
    assert asked - (calls(server) - before) < 200 / 4

    (leader,) = (process for process, _ in pair if process.leads)
    shown = {
        name: leader.metric(f'millstream_queue_{name}{{queue="default"}}')
        for name in ("waiting", "workers", "slots_free", "demand", "sample_age_seconds")
    }
    assert shown.pop("sample_age_seconds") is not None
    assert shown == {
        "waiting": WAITING, "workers": WORKERS, "slots_free": WORKERS * 100, "demand": WAITING,
    }  # fmt: skip

    server.kill()
    await until(lambda: all_tell(None), 45, "both say that they do not know")
    assert set(seen) <= {str(WAITING), 503, 401}, json.dumps(seen[-10:])
    assert leader.metric('millstream_queue_demand{queue="default"}') is None

    server.restart()
    await until(lambda: all_tell(WAITING), 30, "both tell of a million again")
    assert all(process.process.poll() is None for process, _ in pair)
