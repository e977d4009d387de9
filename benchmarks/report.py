"""What was found, for people: a table of medians, and a plot of our ratios to the others.

It reads the lines that a run has written, so that an old run can be drawn again:
``python -m benchmarks.report DIRECTORY``.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.catalogue import SYSTEMS

LINES, FACTS, TABLE, PLOT = "results.jsonl", "machine.json", "results.md", "ratios.png"
OURS = "millstream"
#: Those whose ratios are drawn: what a reader compares first.
DRAWN = {
    ("enqueue", "bulk"): "enqueue in bulk",
    ("enqueue", "one by one, 1 caller"): "enqueue, 1 caller",
    ("enqueue", "one by one, 100 callers"): "enqueue, 100 callers",
    ("drain", "rate"): "drain, 1 worker",
    ("drain2", "rate"): "drain, 2 workers",
    ("drain", "worker cpu"): "worker CPU a job",
    ("drain", "server cpu"): "server CPU a job",
    ("io", "5000 x 50 ms"): "5,000 x 50 ms of I/O",
    ("latency", "p50"): "latency p50",
    ("latency", "p99"): "latency p99",
    ("steps", "runs of five"): "five steps a run",
    ("tools", "calls"): "MCP calls",
    ("recovery_tuned", "killed to all going on"): "recovery, tuned",
    ("idle", "pss"): "memory of an idle worker",
}
Line = Mapping[str, Any]


def write(directory: Path) -> list[Path]:
    """Write table and plot beside the lines; return what was written."""
    lines = [json.loads(x) for x in (directory / LINES).read_text("utf-8").splitlines()]
    machine = json.loads((directory / FACTS).read_text("utf-8"))
    written = [directory / TABLE]
    written[0].write_text(table(lines, machine), "utf-8")
    bars = ratios(lines)
    if bars and find_spec("matplotlib") is not None:
        draw(bars, directory / PLOT)
        written.append(directory / PLOT)
    return written


# -- the table ---------------------------------------------------------------------------------


def table(lines: Sequence[Line], machine: Mapping[str, Any]) -> str:
    """Return a page: the machine, then one row a figure and one column a system."""
    systems = [name for name in SYSTEMS if any(line["system"] == name for line in lines)]
    page = ["# Results", "", *_machine(machine), ""]
    for measure in dict.fromkeys(line["measure"] for line in lines):
        of_measure = [line for line in lines if line["measure"] == measure]
        present = [name for name in systems if any(x["system"] == name for x in of_measure)]
        page += [f"## {measure}", "", *_rows(of_measure, present), ""]
    page.append("Each cell: median (least to most). Bold: the best median of the row.")
    return "\n".join([*page, ""])


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    yield f"Written by `python -m benchmarks`, {machine.get('repeat', '?')} repetitions."
    yield ""
    for name, value in machine.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        yield f"- {name}: {text}"


def _rows(lines: Sequence[Line], systems: Sequence[str]) -> Iterator[str]:
    yield "| figure | " + " | ".join(systems) + " |"
    yield "|---|" + "---:|" * len(systems)
    for metric in dict.fromkeys(line["metric"] for line in lines):
        row = {line["system"]: line for line in lines if line["metric"] == metric}
        first = next(iter(row.values()))
        best = _best(row.values(), first["better"])
        cells = (_cell(row.get(name), best) for name in systems)
        yield f"| {metric}, {first['unit']} | " + " | ".join(cells) + " |"


def _best(lines: Iterable[Line], better: str) -> float | None:
    # The bare loop promises nothing, so it is a bound and no rival.
    medians: list[float] = [
        x["median"] for x in lines if x["median"] is not None and x["system"] != "bare"
    ]
    if len(set(medians)) < 2:
        return None
    return max(medians) if better == "higher" else min(medians)


def _cell(line: Line | None, best: float | None) -> str:
    if line is None:
        return "-"
    if line["median"] is None:
        return f"not in {line['limit']:g}" if line["limit"] is not None else "-"
    median = _number(line["median"])
    if line["median"] == best and line["system"] != "bare":
        median = f"**{median}**"
    if line["n"] == 1:
        return median
    return f"{median} ({_number(line['min'])} to {_number(line['max'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# -- the plot ----------------------------------------------------------------------------------


def ratios(lines: Sequence[Line]) -> dict[str, dict[str, float]]:
    """Return, per figure and system, how many times better ours is: below 1 we lose."""
    medians = {(x["measure"], x["metric"], x["system"]): x for x in lines if x["median"]}
    found: dict[str, dict[str, float]] = {}
    for (measure, metric), title in DRAWN.items():
        ours = medians.get((measure, metric, OURS))
        for name in SYSTEMS:
            theirs = medians.get((measure, metric, name))
            if ours is None or theirs is None or name == OURS:
                continue
            ratio = ours["median"] / theirs["median"]
            better = ratio if ours["better"] == "higher" else 1 / ratio
            found.setdefault(title, {})[name] = better
    return found


def draw(bars: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw one panel a figure, one bar a system, on a logarithmic scale around 1."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    columns = 3
    rows = -(-len(bars) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(12, 2.2 * rows), squeeze=False, layout="constrained"
    )
    panels = [axis for row in axes for axis in row]
    for panel, (title, row) in zip(panels, bars.items(), strict=False):
        _panel(panel, title, row)
    for panel in panels[len(bars) :]:
        panel.set_visible(False)
    figure.suptitle("millstream beside others: times better (left of the line we lose)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Any, title: str, row: Mapping[str, float]) -> None:
    names = list(row)[::-1]
    values = [row[name] for name in names]
    # From 1, so that a bar to the left is a loss.
    widths = [value - 1 for value in values]
    colours = ["tab:green" if value >= 1 else "tab:red" for value in values]
    panel.barh(names, widths, left=1, color=colours)
    panel.set_xscale("log")
    panel.axvline(1, color="black", linewidth=0.8)
    for place, value in enumerate(values):
        panel.text(value, place, f" {value:.3g}", va="center", fontsize=7)
    panel.set_title(title, fontsize=9)
    panel.tick_params(labelsize=7)
    # Never closer than a factor of two, so that a tie looks like one.
    panel.set_xlim(min(0.5, 0.6 * min(values)), max(2, 2.2 * max(values)))


if __name__ == "__main__":
    for file in write(Path(sys.argv[1])):
        print(file)
