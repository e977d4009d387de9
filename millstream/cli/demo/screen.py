"""What is seen of the demo while it plays: drawn for a terminal, told in lines for a pipe."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millstream.cli.output import Output, clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

#: Lines of the story that stay in sight, and runs that fit under a worker.
_STORY, _ROWS = 16, 6
_BAR = 40


@dataclass(frozen=True, slots=True)
class Busy:
    """A run in the hands of a worker."""

    title: str
    step: str
    #: It was another worker's before.
    moved: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """The state of things at one moment."""

    done: int
    total: int
    workers: dict[str, list[Busy]] = field(default_factory=dict)
    #: Worker -> what it has come to, such as "killed".
    fate: dict[str, str] = field(default_factory=dict)
    #: The latest batches, in words.
    batches: list[str] = field(default_factory=list)


class Screen:
    """Tells the story: ``say`` is a moment worth a line, ``show`` the state in between."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._began = time.monotonic()
        self._story: deque[str] = deque(maxlen=_STORY)
        self._view = View(0, 0)
        self._live: Live | None = None
        self._tenth = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def playing(self) -> AbstractContextManager[Any]:
        """Draw, for this block, where a terminal looks on."""
        if not self._out.drawn:
            return nullcontext()

        from rich.live import Live

        self._live = Live(
            console=self._out.console(), get_renderable=self._draw, refresh_per_second=8
        )
        return self._live

    def say(self, text: str) -> None:
        """Tell a moment."""
        line = f"{self.elapsed_s:5.1f} s  {clean(text)}"
        self._story.append(line)
        if self._live is None and not self._out.json:
            self._out.plain(line)

    def show(self, view: View) -> None:
        """Bring the state up to date; a pipe gets a line for every tenth."""
        self._view = view
        tenth = view.done * 10 // view.total if view.total else 0
        if self._live is None and tenth > self._tenth and view.workers:
            held = " | ".join(
                f"{name}: {view.fate.get(name) or f'{len(runs)} running'}"
                for name, runs in view.workers.items()
            )
            self.say(f"{view.done:3d} of {view.total} runs done | {held}")
        self._tenth = tenth

    # -- below ---------------------------------------------------------------------------------

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [Text(line, overflow="ellipsis") for line in self._story]
        view = self._view
        if view.total:
            filled = _BAR * view.done // view.total
            bar = Text("━" * filled, style="green") + Text("━" * (_BAR - filled), style="dim")
            parts += [Text(), bar + Text(f"  {view.done} of {view.total} runs done")]
        parts += [Text(line, style="cyan", overflow="ellipsis") for line in view.batches]
        if view.workers:
            grid = Table.grid(expand=True)
            for _ in view.workers:
                grid.add_column(ratio=1)
            grid.add_row(*(self._worker(name) for name in view.workers))
            parts.append(grid)
        return Group(*parts)

    def _worker(self, name: str) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        fate = self._view.fate.get(name)
        rows = Table.grid(padding=(0, 1), expand=True)
        rows.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        rows.add_column(no_wrap=True, justify="right")
        runs = self._view.workers[name]
        for busy in runs[:_ROWS]:
            style = "yellow" if busy.moved else ""
            rows.add_row(Text(clean(busy.title), style=style), Text(busy.step, style="dim"))
        for _ in range(max(0, _ROWS - len(runs))):
            rows.add_row("", "")
        title = f"worker {name}" + (f": {fate}" if fate else f": {len(runs)} running")
        return Panel(rows, title=title, title_align="left", border_style="red" if fate else "green")
