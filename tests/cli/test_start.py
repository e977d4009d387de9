"""What a command costs to start, and what it may ask to be installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import Program

#: What the processes need and a caller does not.
OF_PROCESSES = {"aiohttp", "mcp", "prometheus_client", "structlog", "uvloop", "jsonschema"}
#: What only commands that talk to Redis, or that draw, need to wait for.
SLOW = {"redis", "rich.console", "anyio", "asyncio"}


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], OF_PROCESSES | SLOW),
        (["--version"], OF_PROCESSES | SLOW),
        (["enqueue", "add", "--redis", "redis://127.0.0.1:1"], OF_PROCESSES),
        (["runs", "list", "--redis", "redis://127.0.0.1:1", "--patience", "0"], OF_PROCESSES),
    ],
    ids=["help", "version", "enqueue", "runs"],
)
def test_a_command_imports_only_what_it_uses(arguments: list[str], unwanted: set[str]) -> None:
    """The thin client has none of the processes' packages, and `--help` must not feel heavy."""
    code = (
        "import sys; from millstream.cli import answer; answer(sys.argv[1:]);"
        "print('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )

    assert unwanted & set(done.stderr.splitlines()[-1].split()) == set()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["worker", "flows:app"], "worker"),
        (["scheduler"], "scheduler"),
        (["dev", "flows:app"], "worker"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    arguments: list[str], extra: str, program: Program
) -> None:
    """A newcomer installed `millstream` alone, and is told the one command that helps."""
    (program.directory / "sitecustomize.py").write_text(_WITHOUT, "utf-8")
    bare = Program(program.directory, {**program.environment, "PYTHONPATH": "."})

    said = bare(*arguments)

    assert said.code == 2
    assert len(said.lines) == 1
    assert f"pip install 'millstream[{extra}]'" in said.err


def test_the_version_and_the_bare_command() -> None:
    """Both are what somebody types first."""
    program = Program(Path.cwd())

    assert program("--version").out.startswith("millstream ")
    assert program("--version", "--json").json.keys() == {"millstream", "python"}
    said = program()
    assert said.code == 0
    assert "Exit codes:" in said.out


_WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(OF_PROCESSES)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
