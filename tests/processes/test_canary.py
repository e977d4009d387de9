"""A version on trial, with real workers of two releases and a real scheduler that judges.

The old release has one version of the workflow, the new one has both. A run says in each of its
steps which version ran it.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from millstream import Enqueue, RunFailed, SyncClient
from millstream.client.synchronous import SyncRun
from millstream.model.trial import Phase
from tests.cli.program import Program, Started
from tests.processes.fleet import wait_until
from tests.servers import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OLD = """
from millstream import Context, Workflows

app = Workflows()

def say(version):
    return version

async def both_steps(ctx, version, wait):
    first = await ctx.step(say, version)
    if wait == "signal":
        await ctx.wait_signal("go")
    else:
        await ctx.sleep(wait)
    return [first, await ctx.step(say, version)]

@app.workflow(name="order", version="1")
async def order_1(ctx: Context, wait: float | str = 0.05, fail: bool = False) -> list[str]:
    return await both_steps(ctx, "1", wait)
"""
NEW = (
    OLD
    + """
@app.workflow(name="order", version="2")
async def order_2(ctx: Context, wait: float | str = 0.05, fail: bool = False) -> list[str]:
    found = await both_steps(ctx, "2", wait)
    if fail:
        raise ValueError("the new way does not work")
    return found
"""
)
WORKER = ("--http", "-1", "--metrics", "-1", "--lease", "1", "--grace", "0", "--park-after", "0")


class Fleet:
    """Workers of both releases, and a scheduler."""

    def __init__(self, program: Program) -> None:
        self.program = program
        (program.directory / "old.py").write_text(OLD, "utf-8")
        (program.directory / "new.py").write_text(NEW, "utf-8")
        self.started: list[Started] = []
        self.start("scheduler", "--http", "-1", "--metrics", "-1", "--lease", "1",
                   "--sample", "0.2")  # fmt: skip

    def start(self, *arguments: str) -> Started:
        self.started.append(self.program.start(*arguments))
        return self.started[-1]

    def worker(self, release: str) -> Started:
        return self.start("worker", f"{release}:app", *WORKER)


@pytest.fixture
def fleet(redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    redis_server.flush()
    made = Fleet(Program(tmp_path, {"MILLSTREAM_REDIS": redis_server.url}))
    try:
        yield made
    finally:
        for each in made.started:
            each.stop(signal.SIGKILL)


def enqueue(client: SyncClient, name: str, count: int, **arguments: object) -> list[SyncRun]:
    asked = [Enqueue("order", arguments, f"{name}-{n}") for n in range(count)]
    return client.enqueue_many(asked)


def versions(runs: Sequence[SyncRun]) -> Counter[str]:
    """Which version ran each of them: one, in all its steps."""
    found: Counter[str] = Counter()
    for run in runs:
        first, second = run.result(timeout=30)
        assert first == second == run.status().version
        found[first] += 1
    return found


def test_a_canary_from_its_start_to_its_end(fleet: Fleet, redis_server: RedisServer) -> None:
    """Its share is what was asked for, a failing one goes by itself, and no run is moved."""
    fleet.worker("old")
    canary = fleet.worker("new")
    with SyncClient(redis_server.url, patience=30) as client:
        client.trials.start("order", version="2", kept="1", share=0.25, unseen=True)

        # A quarter, although half of the workers know the version; and one of them dies.
        runs = enqueue(client, "shared", 400)
        canary.stop(signal.SIGKILL)
        fleet.worker("new")
        found = versions(runs)
        # Four standard deviations.
        assert abs(found["2"] - 100) < 35
        keys = redis_server.client().hgetall("millstream:{default:0}:tried")
        assert keys == {b"order 2 completed": str(found["2"]).encode(),
                        b"order 1 completed": str(found["1"]).encode()}  # fmt: skip
        assert no_refusals(redis_server, runs)

        # What has begun stays, whatever becomes of the version.
        patient = enqueue(client, "patient", 40, wait="signal")
        wait_until(lambda: client.depth().parked == 40, 30, "all of them wait")
        failing = enqueue(client, "failing", 200, fail=True)
        phase = wait_until(
            lambda: (
                client.trials.get("order").trial.phase is not Phase.RUNNING
                and client.trials.get("order").trial
            ),
            30,
            "the scheduler has rolled it back",
        )
        assert (phase.phase, "runs of version 2 failed" in phase.reason) == (
            Phase.ROLLED_BACK,
            True,
        )
        assert versions(enqueue(client, "safe", 60)) == {"1": 60}
        for run in patient:
            run.signal("go")
        assert set(versions(patient)) == {"1", "2"}
        assert {outcome(run) for run in failing} == {("1", "ok"), ("2", "ValueError")}

        # A better one is promoted: every new run gets it, though old workers are still there.
        client.trials.start("order", version="2", kept="1", share=0.1, unseen=True)
        client.trials.promote("order")
        assert versions(enqueue(client, "promoted", 60)) == {"2": 60}

    trail = fleet.program("audit", "list", "--json").json["acts"]
    assert [x["verb"] for x in trail if x["actor"] == "millstream-scheduler"] == ["roll back trial"]


def outcome(run: SyncRun) -> tuple[str | None, str]:
    try:
        run.result(timeout=30)
    except RunFailed as error:
        return run.status().version, error.cause
    return run.status().version, "ok"


def no_refusals(server: RedisServer, runs: Sequence[SyncRun]) -> bool:
    """Whether every run was given to workers that knew its version, each time."""
    with server.client() as client:
        return not any(
            client.hget(f"millstream:{{default:0}}:run:{run.id}", "refusals") for run in runs
        )
