"""What ``millstream runs --help`` and its kin look like: each command with all it is for.

Promise: a summary is wrapped and not cut, so the half that tells two commands apart is there. It
does not know which commands there are.
"""

from __future__ import annotations

from typing import Any

import typer.core


class Group(typer.core.TyperGroup):
    """Commands under one name."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _summary(each.help)) for name, each in found if each and not each.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _summary(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())
