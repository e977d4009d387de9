"""The batches that formed: read from what the workers log, as they run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream.cli.demo.markdown import count, table

_MARK = b'"batch_ran"'


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of one worker."""

    worker: str
    items: int
    #: Words of all its inputs, and of the longest.
    tokens: int
    longest: int
    #: The runs that asked for them.
    runs: int
    took_s: float

    def __str__(self) -> str:
        runs = count(self.runs, "run")
        return (
            f"{self.worker}: {count(self.items, 'input')} of {runs} in {1000 * self.took_s:.0f} ms,"
            f" {self.tokens / self.items:.0f} words each, {self.longest} at most"
        )


class Reader:
    """Reads the logs as they grow."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self._logs = logs
        self._at = dict.fromkeys(logs, 0)

    def news(self) -> list[Batch]:
        """Return the batches since the last call."""
        return [batch for worker in self._logs for batch in self._of(worker)]

    def _of(self, worker: str) -> Iterator[Batch]:
        with self._logs[worker].open("rb") as file:
            file.seek(self._at[worker])
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at[worker] += whole
        for line in data[:whole].splitlines():
            if _MARK in line and (batch := _read(worker, line)):
                yield batch


def _read(worker: str, line: bytes) -> Batch | None:
    said = json.loads(line)
    if said.get("event") != "batch_ran" or "fault" in said:
        return None
    return Batch(
        worker=worker,
        items=said["items"],
        tokens=said["tokens"],
        longest=said["longest"],
        runs=len(said["runs"]),
        took_s=said["took_s"],
    )


def in_one_line(batches: Sequence[Batch]) -> str:
    """Return what became of them, for who looks on."""
    if not batches:
        return "no batch was seen"
    shared = sum(batch.runs > 1 for batch in batches)
    largest = max(batches, key=lambda batch: (batch.runs, batch.items))
    return (
        f"{count(sum(x.items for x in batches), 'input')} in"
        f" {count(len(batches), 'batch', 'batches')}, {shared} of them shared by several runs;"
        f" one held {count(largest.items, 'input')} of {count(largest.runs, 'run')}"
    )


def chapter(batches: Sequence[Batch]) -> Iterator[str]:
    """Yield the chapter of the report."""
    yield "## How the batches formed"
    yield ""
    if not batches:
        yield "No model was asked."
        yield ""
        return

    yield (
        f"The runs asked the embedder about {in_one_line(batches)}. A batch leaves when the device"
        " is free and nobody who could join is left; an input that several runs ask for at once is"
        " computed once."
    )
    yield ""
    yield from table(
        ("Runs that shared a batch", "batches", "inputs", "inputs a batch", "ms a batch"),
        (_row(group) for group in _by_runs(batches)),
        "rrrrr",
    )


def _by_runs(batches: Iterable[Batch]) -> list[list[Batch]]:
    groups: dict[int, list[Batch]] = {}
    for batch in batches:
        groups.setdefault(batch.runs, []).append(batch)
    return [groups[runs] for runs in sorted(groups)]


def _row(group: Sequence[Batch]) -> Sequence[str]:
    items = sum(batch.items for batch in group)
    took_ms = 1000 * sum(batch.took_s for batch in group) / len(group)
    return (
        f"{group[0].runs}", f"{len(group):,}", f"{items:,}", f"{items / len(group):.1f}",
        f"{took_ms:.1f}",
    )  # fmt: skip
