"""``millstream bench`` measures from a checkout, and says in one line why it cannot elsewhere."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import millstream
from benchmarks.measures import measures
from tests.cli.program import Program


def test_from_a_checkout_it_says_what_can_be_measured(program: Program) -> None:
    """The command is the one that `make bench` runs, whatever directory one is in."""
    said = program("bench", "--list")

    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()] == list(measures())


def test_what_it_refuses_is_told_by_its_exit_code(program: Program) -> None:
    """The exit code of the benchmark is the command's own."""
    said = program("bench", "--measures", "drian")

    assert said.code == 2
    assert len(said.lines) == 1


def test_without_the_source_it_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """The wheel does not carry the benchmark: the peers' adapters are no part of a product."""
    package = Path(millstream.__file__).parent
    shutil.copytree(package, tmp_path / "millstream", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", "bench"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "make bench" in done.stderr
