"""The peers' environments: one each, in ``.tools/bench``, with the versions of ``peers.toml``."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.processes import Failed

ROOT = Path(__file__).resolve().parent.parent
_PLACE = ROOT / ".tools" / "bench"


def requirements() -> Mapping[str, Sequence[str]]:
    """Return what each peer wants installed."""
    text = Path(__file__).with_name("peers.toml").read_text("utf-8")
    return {name: row["requirements"] for name, row in tomllib.loads(text).items()}


def python_of(system: str) -> Path:
    """Return the interpreter of a system: its own environment's, or ours."""
    if system not in requirements():
        return Path(sys.executable)
    return _PLACE / system / "bin" / "python"


def prepare(system: str) -> None:
    """Install a peer where that is not done yet."""
    wanted = requirements().get(system)
    if wanted is None:
        return

    stamp = _PLACE / system / ".installed"
    text = "\n".join(wanted)
    if stamp.exists() and stamp.read_text("utf-8") == text:
        return

    print(f"installing {wanted[0]} into {stamp.parent.relative_to(ROOT)} ...", file=sys.stderr)
    pip = [str(python_of(system)), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(stamp.parent)],
        [*pip, "--disable-pip-version-check", *wanted],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{system} could not be installed: {done.stderr[-800:]}")
    stamp.write_text(text, "utf-8")


def versions(system: str) -> Mapping[str, str]:
    """Return the releases that are installed, of what was asked for."""
    names = [name.split("=")[0].split("[")[0] for name in requirements().get(system, ())]
    if not names:
        return {}
    code = (
        "import sys; from importlib.metadata import version;"
        "print('\\n'.join(version(name) for name in sys.argv[1:]))"
    )
    command = [str(python_of(system)), "-c", code, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split(), strict=True))
