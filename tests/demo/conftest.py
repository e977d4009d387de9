"""A stage for the demo: a repository to study, and a place where nothing may be left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.demo.made import Made, orchard

DEMO = [sys.executable, "-m", "millstream.cli", "demo"]


@dataclass(frozen=True)
class Place:
    """Where the demo runs, and where it may put temporary files."""

    path: Path

    @property
    def temporary(self) -> Path:
        """Where its temporary files go."""
        return self.path / "tmp"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the demo."""
        return subprocess.Popen(
            [*DEMO, *arguments],
            cwd=self.path,
            env=_clean(os.environ) | {"TMPDIR": str(self.temporary)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run the demo; return its exit code, its output and its complaints."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def leftovers(self) -> list[str]:
        """Return what the demo left behind: files, and processes that it had started."""
        found = [str(file) for file in self.temporary.iterdir()]
        for process in psutil.process_iter(["cmdline", "cwd"]):
            where = " ".join([*(process.info["cmdline"] or ()), process.info["cwd"] or ""])
            if str(self.temporary) in where:
                found.append(where)
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty directory for one demo."""
    (tmp_path / "tmp").mkdir()
    return Place(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The small repository."""
    return orchard(tmp_path / "orchard")


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if not k.startswith("MILLSTREAM_")}
