"""``millstream bench``: how fast it is beside its peers, measured on this machine.

The benchmark is no part of the wheel: it needs the checkout, in which it lives beside the code
that it measures.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import millstream
from millstream.cli.exits import Exit
from millstream.cli.extras import missing
from millstream.errors import MissingExtra, UsageError

_STOP_S = 30.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    *,
    measures: Annotated[
        str, typer.Option(metavar="A,B", help="Only these measures; --list names them.")
    ] = "",
    systems: Annotated[
        str, typer.Option(metavar="A,B", help="Only these systems; --list names them.")
    ] = "",
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Repetitions.")] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small counts: does it work, not how fast is it.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results go.  [default: benchmarks/results]"),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say what can be measured.")] = False,
    json: Annotated[  # noqa: ARG001 - every command has it
        bool, typer.Option("--json", help="JSON lines on stdout, as without it.")
    ] = False,
) -> int:
    """Measure millstream and its peers, interleaved, on private servers (about half an hour).

    The peers are installed from PyPI into environments of their own, below .tools/bench.
    """
    root = _checkout()
    for name in missing("bench"):
        raise MissingExtra("bench", name)

    arguments = ["--repeat", str(repeat)]
    arguments += ["--measures", measures] if measures else []
    arguments += ["--systems", systems] if systems else []
    arguments += ["--out", str(out.absolute())] if out else []
    arguments += [flag for flag, given in (("--quick", quick), ("--list", list_)) if given]
    return _run([sys.executable, "-m", "benchmarks", *arguments], root)


def _checkout() -> Path:
    """Return where the benchmark lives. Raises `UsageError` outside a checkout."""
    root = Path(millstream.__file__).parent.parent
    if not (root / "benchmarks" / "__main__.py").exists():
        raise UsageError(
            "the benchmark comes with the source, not with the package:"
            " clone the repository and run `make bench` there"
        )
    return root


def _run(command: list[str], root: Path) -> int:
    """Run it to its end. Ctrl-C reaches it too: it ends what it started, and is waited for."""
    process = subprocess.Popen(command, cwd=root)  # noqa: S603 - our own module
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait(_STOP_S)
        return int(Exit.INTERRUPTED)
    finally:
        process.kill()
        process.wait()
