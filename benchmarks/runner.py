"""Takes all samples, interleaved: in each repetition every system has its turn, in rotated order.

So a machine that grows slower in the middle of a run makes nobody look slower than another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from subprocess import SubprocessError
from typing import Any

import psutil
import redis

from benchmarks.catalogue import SYSTEMS, System
from benchmarks.measures import Figure, Measure, Sizes, measures
from benchmarks.processes import Failed

#: What a peer, a server or the machine can do to one sample.
_FAILURES = (Failed, OSError, ValueError, SubprocessError, redis.RedisError, psutil.Error)


class Mistaken(Exception):
    """Something was asked for that does not exist."""


@dataclass(frozen=True, slots=True)
class Row:
    """All samples of one figure: one JSON line."""

    measure: str
    metric: str
    system: str
    unit: str
    better: str
    samples: list[float | None] = field(default_factory=list)
    limit: float | None = None

    @property
    def known(self) -> list[float]:
        """The samples that came in time."""
        return [value for value in self.samples if value is not None]

    @property
    def median(self) -> float | None:
        """The median; None when half of the samples, or more, did not come in time."""
        if 2 * len(self.known) <= len(self.samples):
            return None
        late = [float("inf")] * (len(self.samples) - len(self.known))
        return statistics.median(self.known + late)

    def line(self) -> dict[str, Any]:
        """Return what is written of it."""
        row = asdict(self)
        row["n"] = len(row["samples"])
        known = self.known
        row |= {
            "median": _short(self.median),
            "min": _short(min(known, default=None)),
            "max": _short(max(known, default=None)),
            "samples": [_short(value) for value in row["samples"]],
        }
        return row


def plan(names: Sequence[str], systems: Sequence[str]) -> Iterator[tuple[Measure, list[System]]]:
    """Return who takes part in what. Raises `Mistaken` for a name that does not exist."""
    known = measures()
    for name in names:
        if name not in known:
            raise Mistaken(f"no measure {name!r}; there are {', '.join(known)}")
    for name in systems:
        if name not in SYSTEMS:
            raise Mistaken(f"no system {name!r}; there are {', '.join(SYSTEMS)}")

    for measure in [known[name] for name in names or known]:
        named = [SYSTEMS[name] for name in systems]
        asked = named or [each for each in SYSTEMS.values() if measure.usually(each)]
        # A name given for one measure among several means: those of these that usually take part.
        if named and not names:
            asked = [each for each in named if measure.usually(each)]
        yield measure, [each for each in asked if measure.possible(each)]


def run(
    planned: Sequence[tuple[Measure, list[System]]],
    sizes: Sizes,
    repeat: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    """Take all samples; a measure's rows come when it is through."""
    for measure, systems in planned:
        rows: dict[tuple[str, str], Row] = {}
        began = time.monotonic()
        for repetition in range(repeat):
            turn = repetition % max(1, len(systems))
            for system in systems[turn:] + systems[:turn]:
                say(f"{measure.name}: {repetition + 1} of {repeat}, {system.name}")
                for figure in _sample(measure, sizes, system, say):
                    _add(rows, measure, system, figure)
        say(f"{measure.name}: {time.monotonic() - began:.0f} s")
        yield from rows.values()


def _sample(
    measure: Measure, sizes: Sizes, system: System, say: Callable[[str], None]
) -> list[Figure]:
    """Take one sample. One that fails is told and left out: the others are worth having."""
    try:
        return list(measure.take(sizes, system))
    except _FAILURES as error:
        say(f"{measure.name}: {system.name} failed: {type(error).__name__}: {error}")
        return []


def _add(
    rows: dict[tuple[str, str], Row], measure: Measure, system: System, figure: Figure
) -> None:
    key = (figure.metric, system.name)
    if key not in rows:
        rows[key] = Row(
            measure.name, figure.metric, system.name, figure.unit, figure.better, [], figure.limit
        )
    rows[key].samples.append(figure.value)


def _short(value: float | None) -> float | None:
    """Four digits are more than a machine repeats."""
    return None if value is None else float(f"{value:.4g}")
