"""The command line within the process of the test: for what needs no process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from millstream import cli
from tests.cli.program import Answer


@dataclass(frozen=True, slots=True)
class Inside:
    """Calls commands in a directory, at one Redis."""

    directory: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Answer:
        """Run a command to its end."""
        self.capture.readouterr()
        code = cli.answer(arguments)
        written = self.capture.readouterr()
        return Answer(code, written.out, written.err)
