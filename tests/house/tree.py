"""The repository as the house tests see it."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@cache
def project() -> dict[str, Any]:
    """``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@cache
def packages() -> tuple[Path, ...]:
    """The packages that the wheel carries."""
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    return tuple(ROOT / package for package in wheel["packages"])


@cache
def modules() -> tuple[Path, ...]:
    """Every shipped Python file."""
    return tuple(sorted(file for package in packages() for file in package.rglob("*.py")))


@cache
def parsed(file: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(file.read_text("utf-8"), filename=str(file))


def name(file: Path) -> str:
    """How a failing test names a file."""
    return file.relative_to(ROOT).as_posix()
