"""The one command: ``python -m benchmarks``, which is ``make bench`` and ``millstream bench``."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments, machine, report
from benchmarks.catalogue import SYSTEMS
from benchmarks.measures import QUICK, Sizes, measures
from benchmarks.processes import Failed
from benchmarks.runner import Mistaken, plan, run

_RESULTS = Path(__file__).parent / "results"
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write lines, table and plot, and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        with _stopping_on_sigterm():
            return measure(given)
    except (Mistaken, Failed) as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; what was measured before is kept")
        return _INTERRUPTED


def measure(given: argparse.Namespace) -> int:
    """Do what the command line asks for."""
    if given.list:
        for each in measures().values():
            print(f"{each.name:16}{each.says}")
        return 0

    planned = list(plan(given.measures, given.systems))
    taking_part = _prepared({x.name for _, each in planned for x in each})
    planned = [(each, [x for x in who if x.name in taking_part]) for each, who in planned]
    directory: Path = given.out
    directory.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(taking_part) | {"repeat": given.repeat, "quick": given.quick}
    (directory / report.FACTS).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    with (directory / report.LINES).open("w", encoding="utf-8") as file:
        for row in run(planned, QUICK if given.quick else Sizes(), given.repeat, _say):
            line = json.dumps(row.line())
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()
    for path in report.write(directory):
        _say(f"wrote {path}")
    return 0


def _prepared(names: set[str]) -> list[str]:
    """Install the peers, and return whom that worked for: the others are worth measuring."""
    prepared = []
    for name in [each for each in SYSTEMS if each in names]:
        try:
            environments.prepare(name)
            prepared.append(name)
        except Failed as error:
            _say(f"{error}\nit is left out")
    return prepared


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="millstream bench",
        description="Measure millstream beside its peers on this machine: real processes, private"
        " servers, interleaved. One JSON line a figure on stdout; table and plot in a directory.",
        epilog=f"systems: {', '.join(SYSTEMS)}. measures: {', '.join(measures())}.",
    )
    parser.add_argument(
        "--measures", type=_names, default=[], metavar="A,B", help="only these (default: all)"
    )
    parser.add_argument(
        "--systems", type=_names, default=[], metavar="A,B", help="only these (default: all)"
    )
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="repetitions (5)")
    parser.add_argument(
        "--quick", action="store_true", help="small counts: does it work, not how fast is it"
    )
    parser.add_argument(
        "--out", type=Path, default=_RESULTS, metavar="DIR", help="where results are written"
    )
    parser.add_argument("--list", action="store_true", help="say what can be measured")
    return parser


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


@contextlib.contextmanager
def _stopping_on_sigterm() -> Iterator[None]:
    """Make SIGTERM unwind as Ctrl-C does, so that every child is ended."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
