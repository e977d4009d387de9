"""A server that may be called so often at once, by two workers, one of which is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from millstream import Enqueue, SyncClient
from millstream.store.keys import Lane
from tests.processes.conftest import LEASE_S
from tests.processes.fleet import Fleet, WorkerProcess, wait_until
from tests.servers import RedisServer
from tests.tools.bench import web
from tests.tools.fault_http import FaultHttp

MOST, RUNS = 3, 8
LANE = Lane("default")


class Counting:
    """A server that counts its calls, in a thread of its own."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.server = FaultHttp()
        self._portal = portal

    @property
    def under_way(self) -> set[str]:
        """The names of the calls that have begun, and were neither let go nor cut off."""
        return {name for name, event in [*self.server.tools.started.items()] if event.is_set()}

    def let_go(self) -> None:
        """Let every call end, whenever it comes."""

        def open_all() -> None:
            for number in range(RUNS):
                self.server.tools.opened[f"r{number}"].set()

        self._portal.call(open_all)


@pytest.fixture
def counting() -> Iterator[Counting]:
    with start_blocking_portal() as portal:
        made = Counting(portal)
        with portal.wrap_async_context_manager(made.server.serve()):
            yield made


@pytest.mark.slow
def test_never_more_calls_than_the_limit_are_made_by_all_workers(
    counting: Counting, fleet: Fleet, server: RedisServer, client: SyncClient, tmp_path: Path
) -> None:
    """The permits of the one that dies come back with its lease, and nobody waits for ever."""
    file = tmp_path / "mcp.json"
    entry = web(counting.server, limit={"concurrency": MOST})
    file.write_text(json.dumps({"mcpServers": {"faults": entry}}))
    fleet.start(2, mcp=str(file), concurrency=RUNS // 2)
    runs = client.enqueue_many([Enqueue("hold", id=f"r{number}") for number in range(RUNS)])
    tools = counting.server.tools

    wait_until(lambda: tools.in_flight == MOST, 20, "as many calls as may are under way")
    first = counting.under_way
    victim = owner(fleet, server, min(first))
    victim.kill()
    wait_until(lambda: tools.in_flight < MOST, 20, "its calls are cut off")
    wait_until(lambda: tools.in_flight == MOST, 20 * LEASE_S, "its permits are used by the other")
    assert counting.under_way > first

    counting.let_go()
    for run in runs:
        assert run.result(timeout=30) == "opened"
    assert tools.peak == MOST


def owner(fleet: Fleet, server: RedisServer, run_id: str) -> WorkerProcess:
    """Return who holds a run."""
    with server.client() as redis:
        token = redis.hget(LANE.run(run_id), "owner").decode()
    return next(worker for worker in fleet.workers if worker.token == token)
