"""A copy that is taken while workers work goes on elsewhere, and does nothing twice."""

from __future__ import annotations

import io
from pathlib import Path

import anyio
import pytest

from millstream import Client, Enqueue, SyncClient
from millstream.model.journal import StepKind
from millstream.store import codec
from millstream.store.archives import Reader, Writer
from millstream.store.backups import Backup
from millstream.store.connection import Connection
from tests.arranged import Cluster
from tests.cli.program import Program
from tests.processes.effects import BEGUN
from tests.processes.fleet import Fleet, wait_until
from tests.servers import RedisServer

STEPS = 6
EARLY, LATE = 60, 30


def recorded(file: Path) -> dict[str, set[int]]:
    """Which steps of each run the copy has."""
    found: dict[str, set[int]] = {}
    for frame in Reader(io.BytesIO(file.read_bytes())).frames():
        if frame[0] == "run":
            records = [codec.decode_record(data) for data in frame[5].values()]
            found[frame[3]] = {x.value for x in records if x.kind is StepKind.STEP}
    return found


async def copied(url: str, file: Path, asked: list[Enqueue]) -> None:
    """Write a copy, while somebody goes on enqueueing."""
    connection = Connection(url)
    async with Client(url) as client, anyio.create_task_group() as group:
        group.start_soon(client.enqueue_many, asked)
        with file.open("wb") as out:
            writer = Writer(out)
            async for frame in Backup(connection).frames():
                writer.add(frame)
            writer.close()
    await connection.aclose()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_a_copy_has_goes_on_and_no_recorded_step_runs_again(
    tmp_path: Path, server: RedisServer
) -> None:
    """Taken from one Redis in the middle of its work, brought back into a cluster."""
    file = tmp_path / "copy.backup"
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    with (
        SyncClient(server.url) as client,
        Fleet(before, server.url, lease=1, concurrency=20) as old,
    ):
        client.resize("default", lanes=3)
        old.start(1)
        client.enqueue_many(asked("early", EARLY))
        wait_until(lambda: len(old.effects.all(BEGUN)) > EARLY, 30, "they are at work")
        anyio.run(copied, server.url, file, asked("late", LATE))
        old.workers[0].kill()
    steps = recorded(file)
    # All that was accepted before it began, and it was taken in the middle.
    assert {f"early-{n}" for n in range(EARLY)} <= steps.keys()
    assert 0 < sum(map(len, steps.values())) < STEPS * len(steps)

    with Cluster(3) as there:
        back = Program(tmp_path)("restore", str(file), "--redis", there.url, "--json")
        assert (back.code, back.json["runs"]) == (0, len(steps)), back.err
        with SyncClient(there.url) as client, Fleet(after, there.url, lease=1) as new:
            new.start(1, concurrency=50)
            for run_id in steps:
                assert client.run(run_id).result(timeout=60) == list(range(STEPS))
            again = {(x.run, x.step) for x in new.effects.all(BEGUN)}
            wanted = {(run, n) for run, done in steps.items() for n in set(range(STEPS)) - done}
            assert again == wanted
            assert new.effects.repeated() == 0
            depth = client.depth()
    assert (depth.waiting, depth.running, depth.scheduled, depth.parked) == (0, 0, 0, 0)


def asked(name: str, count: int) -> list[Enqueue]:
    arguments = {"steps": STEPS, "pause": 0.05}
    return [Enqueue("chain", arguments, f"{name}-{n}") for n in range(count)]
