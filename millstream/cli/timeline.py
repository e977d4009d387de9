"""A run drawn as a timeline: one line a step, with a bar from when it began to when it was done.

It shows what the journal holds, so it shows the same whichever worker wrote it, and it shows who
that was. Drawing needs only values; nothing is asked of Redis here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from millstream.cli.access import ago, clock, span, waits_for
from millstream.cli.output import STYLES, clean
from millstream.model.journal import Record, RecordStatus, Spilled, StepKind
from millstream.model.run import RunState, RunStatus

if TYPE_CHECKING:
    from rich.console import Console

#: More steps than this are counted, not drawn; ``--json`` has all of them.
MOST_STEPS = 500
_LONGEST_VALUE = 400
_BAR = 40
#: How the error of a run begins that did not fail in its own code.
_ELSEWHERE = ("worker_lost", "UnknownWorkflow")
_COLUMNS = ("STEP", "KIND", "STATUS", "TRIES", "TOOK", "BY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything that is known of a run."""

    status: RunStatus
    arguments: Any
    journal: Mapping[str, Record]
    result: Any

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        run = {**msgspec.to_builtins(self.status), "waits_for": self.status.waits_for}
        return {
            "run": run,
            "arguments": self.arguments,
            "steps": [_step(key, record) for key, record in self.steps()],
            "result": self.result,
        }

    def steps(self) -> Sequence[tuple[str, Record]]:
        """Return the steps in the order in which they began."""
        return sorted(self.journal.items(), key=lambda item: (item[1].began, item[0]))


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the timeline."""

    cells: tuple[str, ...]
    #: Where the bar begins and ends, from 0 to 1.
    left: float
    right: float
    style: str
    #: What went wrong, told under the line.
    failure: str = ""
    #: What else is worth a word there.
    note: str = ""

    def drawn(self, width: int, letter: str) -> str:
        """Return the bar at a width, at least one letter long."""
        begin = min(width - 1, int(self.left * width))
        end = max(begin + 1, round(self.right * width))
        return " " * begin + letter * (end - begin)


def plain(story: Story) -> Iterator[str]:
    """Yield the lines for whoever has no terminal."""
    for label, value in _facts(story):
        yield f"{label:<10} {value}"

    bars = bars_of(story)
    if bars:
        yield ""
        rows = [_COLUMNS, *(bar.cells for bar in bars)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        yield _laid_out(_COLUMNS, widths) + "   " + _axis(story)
        for bar in bars:
            yield f"{_laid_out(bar.cells, widths)}   |{bar.drawn(_BAR, '='):<{_BAR}}|"
            if bar.failure:
                yield f"  ! {bar.failure}"
            if bar.note:
                yield f"  . {bar.note}"
        yield from _left_out(story)


def draw(story: Story, console: Console) -> None:
    """Draw the run on a terminal."""
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2, 0, 0))
    for label, value in _facts(story):
        facts.add_row(Text(label, style="dim"), Text(value, style=STYLES.get(value, "")))
    console.print(facts)

    bars = bars_of(story)
    if not bars:
        return

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    longest = max(len(bar.cells[0]) for bar in bars)
    for column in _COLUMNS:
        least = min(longest, 24) if column == "STEP" else None
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=least)
    wide_enough = console.width >= _BAR + 50
    if wide_enough:
        table.add_column(Text(_axis(story), style="dim"), no_wrap=True)
    for bar in bars:
        cells = [Text(cell, style=STYLES.get(cell, "")) for cell in bar.cells]
        drawn = [Text(bar.drawn(_BAR, "━"), style=bar.style)] if wide_enough else []
        table.add_row(*cells, *drawn)
    console.print()
    console.print(table)
    for bar in bars:
        if bar.failure:
            console.print(Text(f"! {bar.cells[0]}: {bar.failure}", style="red"))
        if bar.note:
            console.print(Text(f". {bar.cells[0]}: {bar.note}", style="dim"))
    for line in _left_out(story):
        console.print(line, style="dim")


def bars_of(story: Story) -> list[Bar]:
    """Return a bar for each step that is drawn."""
    first, last = _span(story)
    length = max(last - first, 1e-6)
    bars = []
    for key, record in story.steps()[:MOST_STEPS]:
        status = _shown_status(record, story.status.state)
        end = min(_end(record), last)
        bars.append(
            Bar(
                (
                    clean(key),
                    str(record.kind),
                    status,
                    str(record.attempts),
                    span(record.took_s) if _measured(record) else "-",
                    record.by[:6] or "-",
                ),
                (record.began - first) / length,
                (end - first) / length,
                STYLES.get(status, "cyan"),
                _failure(record),
                _note(record),
            )
        )

    return bars


def _facts(story: Story) -> Iterator[tuple[str, str]]:
    status = story.status
    times = status.times
    version = f"@{status.version}" if status.version else ""
    yield "run", status.id
    yield "workflow", clean(f"{status.workflow}{version}")
    yield "state", str(status.state)
    yield "queue", status.queue
    if status.forked_from:
        yield "forked", f"from {clean(status.forked_from)}"
    if status.tenant:
        yield "tenant", clean(status.tenant)
    if status.attributes:
        yield "attributes", clean(" ".join(f"{k}={v}" for k, v in status.attributes.items()))
    crashes = f", {status.crashes} of its workers died" if status.crashes else ""
    yield "attempt", f"{status.attempt}{crashes}"
    yield "enqueued", f"{clock(times.enqueued)} ({ago(times.enqueued)} ago)"
    if times.started:
        yield "started", f"{clock(times.started)} after {span(times.started - times.enqueued)}"
    if times.due and not status.state.final:
        yield "goes on", clock(times.due)
    if (reason := waits_for(status)) is not None:
        yield "waits", clean(reason)
    if times.ended:
        took = f" after {span(times.ended - times.started)}" if times.started else ""
        yield "ended", f"{clock(times.ended)}{took}"
    yield "arguments", _short(story.arguments)
    if status.state is RunState.COMPLETED:
        yield "result", _short(story.result)
    if status.error:
        yield "error", clean(status.error)
    if status.state is RunState.FAILED and not (status.error or "").startswith(_ELSEWHERE):
        yield "traceback", "in the log of its worker, beside run_settled"


def _step(key: str, record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {"key": key, **msgspec.to_builtins(record._asdict())}
    if isinstance(record.value, Spilled):
        del found["value"]
        found["spilled"] = record.value._asdict()
    if record.status is RecordStatus.FAILED:
        value = found.pop("value")
        found["error"] = value
    return found


def _span(story: Story) -> tuple[float, float]:
    times = story.status.times
    begins = [record.began for record in story.journal.values()]
    first = min([*begins, times.started or times.enqueued])
    if times.ended is not None:
        return first, max([times.ended, *begins])

    return first, max([time.time(), *begins])


def _end(record: Record) -> float:
    return record.began + record.took_s


def _measured(record: Record) -> bool:
    return record.kind not in {StepKind.VALUE, StepKind.EMIT}


def _shown_status(record: Record, state: RunState) -> str:
    # A timer's record is written once, when it is set; whether it has rung is told by the clock.
    if record.status is RecordStatus.WAITING and (
        state.final or (record.kind is StepKind.SLEEP and _end(record) <= time.time())
    ):
        return str(RecordStatus.OK)
    if record.status is RecordStatus.ENDED:
        ended = RunState(record.value[0])
        return str(RecordStatus.OK if ended is RunState.COMPLETED else RecordStatus.FAILED)

    return str(record.status)


def _failure(record: Record) -> str:
    if record.status is not RecordStatus.FAILED:
        return ""
    if isinstance(record.value, list) and len(record.value) == 3:
        _, cause, message = record.value
        return clean(f"{cause}: {str(message).removeprefix(f'{cause}: ')}")

    return clean(str(record.value))


def _note(record: Record) -> str:
    if not isinstance(record.value, Spilled):
        return ""

    return f"its value of {record.value.size:,} bytes is kept beside the journal"


def _axis(story: Story) -> str:
    first, last = _span(story)
    length = span(last - first)
    return f"0{length:>{_BAR + 1}}"


def _left_out(story: Story) -> Iterator[str]:
    more = len(story.journal) - MOST_STEPS
    if more > 0:
        yield f"and {more:,} more steps; --json has them all"


def _laid_out(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def _short(value: Any) -> str:
    text = clean(msgspec.json.encode(value).decode())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text):,})"
