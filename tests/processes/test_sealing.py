"""Sealed runs with real workers: the files of Redis hold nothing, and keys change under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from millstream import Client, Enqueue, SyncClient
from millstream.store import keyring
from millstream.store.resealing import Tally
from tests.processes.fleet import Fleet, wait_until
from tests.servers import RedisServer

ONE, TWO = keyring.fresh("one"), keyring.fresh("two")
HUSH = "hush-hush"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that writes all that it is told to a file, and packs nothing."""
    with RedisServer(appendonly=True, config={"rdbcompression": "no"}) as server:
        yield server


def files_with(server: RedisServer, word: str) -> list[str]:
    """Return which files of a server have a word in them, snapshots and the log of all writes."""
    with server.client() as client:
        client.save()
    files = [x for x in server.directory.rglob("*") if x.suffix in {".rdb", ".aof"}]
    assert {x.suffix for x in files} == {".rdb", ".aof"}
    return [x.name for x in files if word.encode() in x.read_bytes()]


def rekeyed(url: str, keys: Path) -> Tally:
    """Seal everything under the first key."""

    async def renew() -> Tally:
        async with Client(url, patience=30, seal_keys=str(keys)) as client:
            return await client.sealing.renew()

    return anyio.run(renew)


@pytest.mark.slow
def test_keys_change_under_load_and_nothing_is_lost_or_shown(
    server: RedisServer, tmp_path: Path
) -> None:
    """A hundred and fifty runs, two workers of which one is killed, three files of keys."""
    keys = tmp_path / "keys"
    keys.write_text(ONE, "utf-8")
    settings = {"seal_keys": str(keys), "lease": 1.0}
    with (
        Fleet(tmp_path, server.url, **settings) as fleet,
        SyncClient(server.url, patience=30, seal_keys=str(keys)) as client,
    ):
        first, _ = fleet.start(2)
        runs = []
        for number, ring in enumerate((ONE, f"{ONE}\n{TWO}", f"{TWO}\n{ONE}")):
            keys.write_text(ring, "utf-8")
            wanted = [
                Enqueue("confides", {"word": f"{HUSH} {number}.{n}"}, f"r{number}.{n}")
                for n in range(50)
            ]
            runs += client.enqueue_many(wanted)
            rekeyed(server.url, keys)
            if number == 1:
                first.kill()
                fleet.start()
        wait_until(lambda: client.depth().parked == 150, 60, "all runs wait")
        # As the procedure wants it: whoever seals has looked at the file since it has changed.
        time.sleep(keyring.LOOK_S + 0.5)
        wait_until(lambda: set(rekeyed(server.url, keys).keys) == {"two"}, 30, "one key is left")
        keys.write_text(TWO, "utf-8")
        fleet.start()
        # The client looks at the file when it is old enough, and a parked run is never too late.
        with SyncClient(server.url, patience=30, seal_keys=str(keys)) as later:
            for run in runs:
                later.run(run.id).signal("go", f"{HUSH} end")
            for run in runs:
                word = f"{HUSH} {run.id[1:]}"
                steps = [f"{word} {n}" for n in range(5)]
                children = [f"{word} child {n}" for n in range(3)]
                found = later.run(run.id).result(timeout=60)
                assert found == [*steps, *children, f"{HUSH} end"]

    assert files_with(server, HUSH) == []
    with SyncClient(server.url) as client:
        client.enqueue("confides", {"word": HUSH})
    assert len(files_with(server, HUSH)) > 0
