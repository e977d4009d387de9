"""The flags that say which runs are meant, and the question before something is done to them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer

from millstream.errors import UsageError
from millstream.model.attributes import pairs
from millstream.model.selection import Selection, states

States = Annotated[
    list[str] | None,
    typer.Option("--state", "-s", metavar="STATE", help="Only these; may be repeated."),
]
Workflow = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", help="Only of this workflow.")
]
Tenant = Annotated[str | None, typer.Option(metavar="NAME", help="Only of this tenant.")]
Cause = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only with this cause, such as worker_lost.")
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Enqueued since: 90s, 15m, 2h, 3d, or a time.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Enqueued before, likewise.")]
Attribute = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Only with this attribute; may be repeated."),
]
Limited = Annotated[
    bool, typer.Option("--limited", help="Only those that wait for a permit of a limit.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def selection(  # noqa: PLR0917 - one for each flag
    state: Sequence[str] | None,
    workflow: str | None = None,
    tenant: str | None = None,
    cause: str | None = None,
    since: str | None = None,
    until: str | None = None,
    attribute: Sequence[str] | None = None,
    *,
    limited: bool = False,
) -> Selection:
    """Return which runs the flags mean. Raises `UsageError`."""
    chosen = {"states": states(state)} if state else {}
    return Selection(
        **chosen,
        workflow=workflow,
        tenant=tenant,
        cause=cause,
        since=_moment("--since", since),
        until=_moment("--until", until),
        attributes=pairs(attribute or ()),
        limited=limited,
    )


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask whether to go on. Raises `UsageError` when there is nobody to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is here to say so; add --yes, or --dry-run")
    return typer.confirm(question, err=True)


def _moment(flag: str, text: str | None) -> float | None:
    if text is None:
        return None
    if found := _AGO.fullmatch(text):
        return time.time() - float(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(
            f"{flag} {text!r} is no time; write 15m, 2h, 3d, or 2026-12-24T18:00"
        ) from None
