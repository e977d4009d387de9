"""From values to pages: templates that escape everything, and the headers a page needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jinja2
import msgspec
from aiohttp import web

from millstream.telemetry.redaction import redact
from millstream_gateway.auth.principals import Principal, Role
from millstream_gateway.dashboard.visitors import FIELD, page_of_run, quoted
from millstream_gateway.rest.shapes import MOST_AT_ONCE

#: Nothing is loaded from elsewhere, and no script runs that is not a file of ours.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_LONGEST = 20_000


class Rendering:
    """Makes pages."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("millstream_gateway.dashboard"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters: dict[str, Any] = {
            "ago": self._ago, "ahead": self._ahead, "moment": _moment, "span": span,
            "shown": shown, "q": quoted, "size": size,
        }  # fmt: skip
        self._templates.filters.update(filters)
        self._templates.globals.update(
            field=FIELD, page_of_run=page_of_run, Role=Role, most=MOST_AT_ONCE
        )

    def now(self) -> float:
        """Return the time, as pages tell it."""
        return self._wall()

    def page(
        self, name: str, principal: Principal, *, status: int = 200, **values: Any
    ) -> web.Response:
        """Return a page."""
        text = self._templates.get_template(f"{name}.html").render(who=principal, **values)
        return web.Response(
            text=text,
            status=status,
            content_type="text/html",
            headers={"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY"},
        )

    def _ago(self, epoch_s: float | None) -> str:
        return "" if epoch_s is None else span(max(0.0, self._wall() - epoch_s))

    def _ahead(self, epoch_s: float | None) -> str:
        return "" if epoch_s is None else span(max(0.0, epoch_s - self._wall()))


def size(count: int | None) -> str:
    """Return a number of bytes in a unit that fits it."""
    if count is None:
        return ""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if abs(count) >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def shown(value: Any) -> str:
    """Return a value as people read it: without its secrets, and not longer than a page."""
    data = msgspec.json.format(msgspec.json.encode(redact(value)), indent=2)
    text = data.decode("utf-8", "replace")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def span(seconds: float) -> str:
    """Return a length of time in a unit that fits it."""
    for limit, size, unit in (
        (1, 0.001, "ms"),
        (120, 1, "s"),
        (7200, 60, "min"),
        (172_800, 3600, "h"),
    ):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _moment(epoch_s: float | None) -> str:
    if epoch_s is None:
        return ""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
