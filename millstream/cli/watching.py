"""``--watch``: look again and again.

On a terminal the table is drawn anew in place; into a pipe goes one line whenever a row has
changed, as kubectl does it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import anyio
import typer

from millstream.cli.output import Listing, Output, plain_table, rich_table

Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Look again and again, until interrupted.")
]
Interval = Annotated[
    float,
    typer.Option("--interval", metavar="SECONDS", min=0.1, help="With --watch: how often."),
]


async def watched(
    out: Output, look: Callable[[], Awaitable[Listing]], watch: bool, every_s: float
) -> None:
    """Write what ``look`` finds: once, or until interrupted."""
    if not watch:
        out.listing(await look())
    elif out.drawn:
        await _draw_forever(out, look, every_s)
    else:
        await _write_changes_forever(replace(out, stream=True), look, every_s)


async def _draw_forever(
    out: Output, look: Callable[[], Awaitable[Listing]], every_s: float
) -> None:
    from rich.live import Live

    with Live(rich_table(await look()), console=out.console(), auto_refresh=False) as live:
        while True:
            await anyio.sleep(every_s)
            live.update(rich_table(await look()), refresh=True)


async def _write_changes_forever(
    out: Output, look: Callable[[], Awaitable[Listing]], every_s: float
) -> None:
    known: dict[str, Any] = {}
    while True:
        found = await look()
        changed = [row for row in found.rows if known.get(row.key) != row.document]
        # What is no longer listed need not be remembered.
        known = {row.key: row.document for row in found.rows}
        if out.json:
            for row in changed:
                out.document(row.document)
        elif changed:
            lines = list(plain_table(Listing(found.name, found.columns, changed)))
            for line in lines:
                out.plain(line)
        await anyio.sleep(every_s)
