"""Where a command's words go: results to stdout, remarks to stderr, JSON instead when asked for.

Promise: with ``--json`` stdout carries JSON and nothing else; without it, tables are drawn with
rich when a terminal looks on and are plain columns when not. What comes out of Redis is cleaned
before it is printed, so no run can move the cursor of whoever looks at it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

#: The longest cell that a plain table spells out; JSON has everything.
_WIDEST = 100

STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "scheduled": "blue",
    "parked": "magenta",
    "paused": "yellow",
    "ok": "green",
    "warning": "yellow",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of a listing: as cells for people, and as a document for programs."""

    #: What stays the same when the row changes.
    key: str
    cells: Sequence[str]
    document: Any


@dataclass(frozen=True, slots=True)
class Listing:
    """Things of one kind, in the order in which they are shown."""

    #: What they are called, in the plural.
    name: str
    columns: Sequence[str]
    rows: Sequence[Row] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Output:
    """How this command speaks."""

    json: bool = False
    #: More documents follow, so each is one line, whoever reads it.
    stream: bool = False

    @property
    def drawn(self) -> bool:
        """Whether somebody looks on who likes colours."""
        return not self.json and sys.stdout.isatty()

    def document(self, value: Any) -> None:
        """Write one JSON document; over several lines when it is shown to a person."""
        data = msgspec.json.encode(value, order="deterministic")
        if sys.stdout.isatty() and not self.stream:
            data = msgspec.json.format(data, indent=2)
        self._write(data.decode())

    def say(self, text: str) -> None:
        """Write a line of the answer, for people."""
        if not self.json:
            self._write(clean(text))

    def plain(self, line: str) -> None:
        """Write a line that is laid out and cleaned already."""
        self._write(line)

    def part(self, text: str) -> None:
        """Write a part of a text, which may have lines; the line stays open."""
        self._write("".join(c if c.isprintable() or c == "\n" else " " for c in text), end="")

    def note(self, text: str) -> None:
        """Write a remark that is no part of the answer."""
        print(f"note: {clean(text)}", file=sys.stderr, flush=True)  # noqa: T201 - for people

    def listing(self, listing: Listing) -> None:
        """Write a listing."""
        if self.json:
            self.document({listing.name: [row.document for row in listing.rows]})
        elif not listing.rows:
            self.note(f"no {listing.name}")
        elif self.drawn:
            self.console().print(rich_table(listing))
        else:
            for line in plain_table(listing):
                self.plain(line)

    def console(self, *, stderr: bool = False) -> Console:
        """Return what draws."""
        from rich.console import Console

        return Console(stderr=stderr, highlight=False)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something is awaited; yields what tells of news meanwhile."""
        if self.json or not sys.stderr.isatty():
            yield lambda _: None
            return

        console = self.console(stderr=True)
        with console.status(clean(text)):
            yield lambda news: console.print(clean(news), markup=False)

    @contextlib.contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[], None]]:
        """Show how far something has come; yields what counts one step."""
        if self.json or not sys.stderr.isatty():
            yield lambda: None
            return

        from rich.progress import Progress

        with Progress(console=self.console(stderr=True), transient=True) as bar:
            task = bar.add_task(clean(text), total=total)
            yield lambda: bar.advance(task)

    def _write(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end, flush=True)  # noqa: T201 - this is the output
        except BrokenPipeError:
            # Whoever reads us has read enough, as `head` does; the flush at exit must not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


def clean(text: str) -> str:
    """Return a text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def plain_table(listing: Listing) -> Iterator[str]:
    """Return the lines of a listing in aligned columns."""
    rows = [[_cell(cell) for cell in row.cells] for row in listing.rows]
    headed = [list(listing.columns), *rows]
    widths = [max(len(row[column]) for row in headed) for column in range(len(listing.columns))]
    for row in headed:
        yield "   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def rich_table(listing: Listing) -> RichTable:
    """Return a listing as a table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for column in listing.columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in listing.rows:
        cells = [_cell(cell) for cell in row.cells]
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))

    return table


def _cell(text: str) -> str:
    text = clean(text)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
