"""``millstream scheduler``: fire schedules, clean up and measure the queues until told to stop."""

from __future__ import annotations

from dataclasses import replace

import typer

from millstream.cli.access import refuse_memory
from millstream.cli.extras import part_of
from millstream.cli.flags import command
from millstream.cli.output import Output
from millstream_scheduler.config import SchedulerConfig


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("scheduler")(scheduler)


@command(SchedulerConfig)
def scheduler(*, config: SchedulerConfig, out: Output) -> None:
    """Fire schedules, clean up after the lost and measure the queues until SIGTERM.

    With --json the log is JSON; it goes to stderr, as always.
    """
    refuse_memory(config.redis)
    if out.json:
        config = replace(config, log_format="json")

    part_of("scheduler", "millstream_scheduler.__main__").run(config)
