"""``millstream restore``: bring a copy back into an empty Redis, or check that it is whole.

Promise: a file is read to its end and checked before anything of it is written. From a pipe that
cannot be: then a broken one leaves a part, which says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from millstream.cli.access import refuse_memory, span
from millstream.cli.backup import PATTERN
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Output
from millstream.client.asynchronous import RETENTION_S
from millstream.errors import UsageError
from millstream.store.archives import Reader
from millstream.store.connection import Connection
from millstream.store.restores import Restore


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("restore")(restore)


@command(ClientConfig, without=("queue", "actor"))
async def restore(
    *,
    config: ClientConfig,
    out: Output,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A backup, a directory of them (the newest), or - for stdin."
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check that it is whole; Redis is not asked.")
    ] = False,
) -> None:
    """Bring a copy back into an empty Redis. Stop workers and schedulers first.

    Nobody takes a run before all of it is there. Then what had begun goes on from its journal;
    times that have passed have come, and ended runs are kept for as long as they had left.
    """
    began = time.monotonic()
    path = _path(source)
    reader = Reader(sys.stdin.buffer)
    if verify or path is not None:
        with _opened(path) as file:
            reader = Reader(file)
            for _ in reader.frames():
                pass
    if not verify:
        refuse_memory(config.redis)
        with _opened(path) as file:
            reader = Reader(file)
            await _bring_back(config.redis, reader)

    took_s, runs = time.monotonic() - began, reader.counts.get("run", 0)
    if out.json:
        out.document(
            {"file": source if path is None else str(path), "runs": runs, "frames": reader.counts,
             "sha256": reader.digest, "restored": not verify, "seconds": round(took_s, 3)}
        )  # fmt: skip
    else:
        done = "is whole" if verify else "is back"
        out.say(f"{path or 'the copy'} {done}: {runs:,} runs, in {span(took_s)}")
        out.say(f"sha256 {reader.digest}")


async def _bring_back(redis: str, reader: Reader) -> None:
    connection = Connection(redis)
    try:
        await connection.check()
        task = Restore(connection, RETENTION_S)
        await task.begin()
        await task.write(reader.frames())
        await task.finish()
    finally:
        await connection.aclose()


def _path(source: str) -> Path | None:
    if source == "-":
        return None
    path = Path(source)
    if not path.is_dir():
        return path
    found = sorted(path.glob(PATTERN))
    if not found:
        raise UsageError(f"there is no backup in {path}")
    return found[-1]


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
