"""Tables and plots of what was tried, and the part of ``docs/scaling.md`` that shows them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.autoscaling.loads import LOADS
from benchmarks.autoscaling.trial import OBJECTIVE_S, Outcome

_BEGIN = "<!-- Tables of `python -m benchmarks.autoscaling`: begin -->"
_END = "<!-- end -->"


def averaged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return one outcome for each load and way of scaling: the mean over the seeds."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault((each.load, each.scaling), []).append(each)
    return [_mean(group) for group in groups.values()]


def _mean(group: Sequence[Outcome]) -> Outcome:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(each, name) for each in group)

    return Outcome(
        load=group[0].load,
        scaling=group[0].scaling,
        p50_s=mean("p50_s"),
        p99_s=mean("p99_s"),
        within=mean("within"),
        pod_hours=mean("pod_hours"),
        interrupted=round(mean("interrupted")),
        runs=round(mean("runs")),
        hours=mean("hours"),
        trace=group[0].trace,
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table of outcomes of one load."""
    objective = f"within {OBJECTIVE_S:.0f} s"
    rows = [
        f"| scaled by | p50 wait | p99 wait | {objective} | pod hours | runs interrupted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {each.scaling} | {_seconds(each.p50_s)} | {_seconds(each.p99_s)} |"
        f" {100 * each.within:.1f} % | {each.pod_hours:.1f} |"
        f" {each.interrupted} of {each.runs:,} |"
        for each in outcomes
    ]
    return "\n".join(rows)


def tables(outcomes: Sequence[Outcome], outages: Sequence[Outcome]) -> str:
    """Return all of them, with what each load is."""
    parts = []
    for name, load in LOADS.items():
        found = [each for each in outcomes if each.load == name]
        if found:
            parts += [f"**{name}**: {load.says}", table(found)]
    if outages:
        parts += ["**The metric is away for twelve minutes** of the steady load:", table(outages)]
    return "\n\n".join(parts)


def write_page(page: Path, text: str) -> None:
    """Put the tables between their marks."""
    before, _, rest = page.read_text("utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", "utf-8")


def write_lines(file: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the raw outcomes, one a line, without the traces."""
    lines = [
        json.dumps({key: value for key, value in asdict(each).items() if key != "trace"})
        for each in outcomes
    ]
    file.write_text("\n".join([*lines, ""]), "utf-8")


def plot(file: Path, outcomes: Sequence[Outcome], shown: Mapping[str, str]) -> None:
    """Draw demand and slots over time, a row a load, one way of scaling a column."""
    import matplotlib as mpl  # noqa: PLC0415 - only where something is drawn
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    mpl.use("Agg")
    # The same picture for the same numbers.
    mpl.rcParams["svg.hashsalt"] = "millstream"
    loads = [name for name in LOADS if any(each.load == name for each in outcomes)]
    figure, axes = plt.subplots(
        len(loads), len(shown), figsize=(10, 2 * len(loads)), sharex=True, squeeze=False
    )
    for row, load in enumerate(loads):
        for column, (scaling, title) in enumerate(shown.items()):
            axis = axes[row][column]
            (found,) = [x for x in outcomes if (x.load, x.scaling) == (load, scaling)]
            hours = [at / 3600 for at, *_ in found.trace]
            axis.plot(hours, [slots for *_, slots in found.trace], lw=1, label="slots")
            axis.plot(hours, [runs for _, runs, _ in found.trace], lw=0.6, label="runs")
            axis.set_ylim(0, 400)
            axis.set_title(f"{load}: {title}", fontsize=8)
            axis.tick_params(labelsize=7)
    axes[0][0].legend(fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("hours", fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=80, metadata={"Software": None})
    plt.close(figure)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"
