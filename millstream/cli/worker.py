"""``millstream worker``: serve the workflows of an application until told to stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from millstream.cli.extras import part_of
from millstream.cli.flags import command
from millstream.cli.output import Output
from millstream.store.addresses import StoreKind, parse_address
from millstream_worker.config import WorkerConfig

_TARGET = "module or path/to/file.py; with :attribute where it has several Workflows."
App = Annotated[str, typer.Argument(metavar="APP", help=f"A {_TARGET}")]
MaybeApp = Annotated[
    str | None,
    typer.Argument(metavar="[APP]", help=f"A {_TARGET} Without: only what is built in."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(worker)


@command(WorkerConfig)
def worker(*, config: WorkerConfig, out: Output, app: MaybeApp = None) -> None:
    """Serve the workflows of an application until SIGTERM, then drain.

    The workflows "pipeline" and "agent" are built in, and served besides.
    With --json the log is JSON; it goes to stderr, as always.
    """
    if parse_address(config.redis).kind is StoreKind.MEMORY:
        out.note(f"{config.redis} lives inside this process, so nobody can enqueue anything")
    if out.json:
        config = replace(config, log_format="json")

    part_of("worker", "millstream_worker.__main__").run(config, app, directory=Path.cwd())
