"""``millstream backup``: everything that Redis holds of millstream, in a file.

Promise: a file has its name when it is whole and on disk, so a command that is cut off leaves
nothing that looks like a backup.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from millstream.cli.access import refuse_memory, span
from millstream.cli.flags import ClientConfig, command
from millstream.cli.output import Output
from millstream.errors import UsageError
from millstream.store.archives import Writer
from millstream.store.backups import Backup
from millstream.store.connection import Connection

#: How files are called that are written into a directory: their order is that of their times.
PATTERN = "millstream-*.backup"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backup")(backup)


@command(ClientConfig, without=("queue", "actor"))
async def backup(
    *,
    config: ClientConfig,
    out: Output,
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="A file, a directory, or - for stdout.")
    ],
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", min=1, help="Of a directory's copies the newest N."),
    ] = None,
) -> None:
    """Copy queues, journals, results, schedules, keys and the audit trail, while all goes on.

    Every run that was accepted before is in the copy, whole, as it was at some moment since. The
    file holds what runs and keys hold: guard it like Redis itself.
    """
    refuse_memory(config.redis)
    began = time.monotonic()
    path = _path(target)
    if keep is not None and (path is None or not path.match(PATTERN)):
        raise UsageError("--keep is for copies in a directory: give one as FILE")
    connection = Connection(config.redis)
    copy = Backup(connection)
    try:
        await connection.check()
        with _opened(path) as file:
            writer = Writer(file)
            async for frame in copy.frames():
                writer.add(frame)
            digest = writer.close()
    finally:
        await connection.aclose()

    dropped = _dropped(path, keep)
    if copy.unknown:
        out.note(
            f"{copy.unknown} keys are of a kind that this release does not copy, such as"
            f" {copy.unknown_key!r}"
        )
    took_s, runs = time.monotonic() - began, writer.counts.get("run", 0)
    if path is None:
        out.note(f"{runs:,} runs, {writer.bytes:,} bytes, sha256 {digest}")
    elif out.json:
        out.document(
            {"file": str(path), "runs": runs, "bytes": writer.bytes, "sha256": digest,
             "began": copy.began_ms / 1000, "seconds": round(took_s, 3), "unknown": copy.unknown,
             "dropped": dropped}
        )  # fmt: skip
    else:
        out.say(f"{path}: {runs:,} runs, {writer.bytes:,} bytes, in {span(took_s)}")
        out.say(f"sha256 {digest}")
        for name in dropped:
            out.say(f"dropped {name}")


def _path(target: str) -> Path | None:
    if target == "-":
        if sys.stdout.isatty():
            raise UsageError("a backup is no text for a terminal; give a file, or redirect stdout")
        return None
    path = Path(target)
    if path.is_dir():
        return path / f"millstream-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup"
    return path


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """Yield what is written to; give the file its name when all of it is on disk."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        # Nobody but its owner: it holds everything that runs were given.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _dropped(path: Path | None, keep: int | None) -> list[str]:
    """Delete the oldest copies of a directory; return their names."""
    if keep is None or path is None:
        return []
    old = sorted(path.parent.glob(PATTERN), reverse=True)[keep:]
    for each in old:
        each.unlink(missing_ok=True)
    return [each.name for each in old]
