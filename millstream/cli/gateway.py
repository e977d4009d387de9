"""``millstream gateway``: answer HTTP until told to stop."""

from __future__ import annotations

from dataclasses import replace

import typer

from millstream.cli.access import refuse_memory
from millstream.cli.extras import part_of
from millstream.cli.flags import command
from millstream.cli.output import Output
from millstream_gateway.config import GatewayConfig


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gateway")(gateway)


@command(GatewayConfig)
def gateway(*, config: GatewayConfig, out: Output) -> None:
    """Answer HTTP until SIGTERM: the API under /api/v1, MCP under /mcp, pages for people, probes.

    With --json the log is JSON; it goes to stderr, as always.
    """
    refuse_memory(config.redis)
    if out.json:
        config = replace(config, log_format="json")

    part_of("gateway", "millstream_gateway.__main__").run(config)
