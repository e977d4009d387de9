"""The image's own install script, run in a fresh directory: no container engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import tree
from tests.servers import RedisServer

DOCKERFILE = (tree.ROOT / "Dockerfile").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_image_installs_can_run_and_writes_nothing(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """The builder sees only what it copies, and the root file system may be read-only."""
    source, prefix, scratch = tmp_path / "src", tmp_path / "opt", tmp_path / "tmp"
    _copy_what_the_builder_copies(source)
    scratch.mkdir()

    extras = re.findall(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)[0]
    subprocess.run(
        ["sh", "scripts/image_install.sh", prefix, extras],
        cwd=source,
        env=_environment(PYTHON=sys.executable),
        check=True,
    )
    installed = _files(prefix)
    answer = subprocess.run(
        [prefix / "bin" / "millstream", "doctor", "--json", "--redis", redis_server.url],
        cwd=scratch,
        env={"PATH": "/usr/bin:/bin", "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    found = {each["subject"]: each["detail"] for each in json.loads(answer.stdout)["findings"]}
    assert {found[f"extra {name}"] for name in ("worker", "scheduler", "inference")} == {
        "installed"
    }
    assert _files(prefix) == installed
    assert not (prefix / "bin" / "pip").exists()


def _copy_what_the_builder_copies(target: Path) -> None:
    builder = DOCKERFILE.split(" AS runtime")[0]
    for line in re.findall(r"^COPY (.+)$", builder, re.MULTILINE):
        *sources, destination = line.split()
        for source in map(tree.ROOT.joinpath, sources):
            place = target / destination
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
                continue
            place = place / source.name if destination.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


def _environment(**more: str) -> dict[str, str]:
    """What this process has, without what would lead Python or pip into the checkout."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | more


def _files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
