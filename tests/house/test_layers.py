"""The import contracts bite: each one fails on a tree that breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.house import tree

#: A small house with the real rooms, in order.
SOUND = {
    "millstream/errors.py": "",
    "millstream/store/connection.py": "import redis, fakeredis, millstream.errors",
    "millstream/timetable.py": "import cronsim, millstream.errors",
    "millstream/client.py": "import millstream.store.connection",
    "millstream/telemetry/logs.py": "import structlog, prometheus_client, millstream.errors",
    "millstream/cli/run.py": "import rich, millstream_worker.serve, millstream_scheduler",
    "worker/millstream_worker/__main__.py": "import millstream_worker.serve, millstream.cli",
    "worker/millstream_worker/serve.py": "import millstream.client, millstream.telemetry.logs",
    "worker/millstream_worker/tools/caller.py": "import mcp, mcp_types",
    "worker/millstream_worker/inference/devices.py": "import pynvml, torch",
    "scheduler/millstream_scheduler/serve.py": "import millstream.client",
    "gateway/millstream_gateway/__main__.py": "import millstream_gateway.serve, millstream.cli",
    "gateway/millstream_gateway/serve.py": "import millstream.client, millstream.telemetry.logs",
    "gateway/millstream_gateway/auth/tokens.py": "import jwt",
    "millstream/store/sealing.py": "import cryptography",
    "gateway/millstream_gateway/a2a/agent.py": "import a2a, grpc, google.protobuf",
}
BROKEN = {
    "millstream/errors.py": "import millstream.client, millstream_worker, redis, typer",
    "millstream/store/connection.py": "import opentelemetry",
    "scheduler/millstream_scheduler/serve.py": (
        "import millstream_worker, mcp, torch, cronsim, jwt, cryptography"
    ),
    "scheduler/millstream_scheduler/plan.py": "import a2a",
}


def test_a_sound_house_passes(tmp_path: Path) -> None:
    """Each library is welcome in its own room, and the command line may start processes."""
    _build(tmp_path, SOUND)

    assert _verdicts(tmp_path) == dict.fromkeys(_contracts(), "KEPT")


def test_every_contract_fails_on_a_house_that_breaks_it(tmp_path: Path) -> None:
    """A contract that cannot fail protects nothing."""
    _build(tmp_path, SOUND | BROKEN)

    assert _verdicts(tmp_path) == dict.fromkeys(_contracts(), "BROKEN")


def _contracts() -> list[str]:
    return [contract["name"] for contract in tree.project()["tool"]["importlinter"]["contracts"]]


def _build(root: Path, sources: dict[str, str]) -> None:
    shutil.copy(tree.ROOT / "pyproject.toml", root)
    for file, source in sources.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\n", "utf-8")
        package = path.parent
        while package not in {root, root / "worker", root / "scheduler", root / "gateway"}:
            (package / "__init__.py").touch()
            package = package.parent


def _verdicts(root: Path) -> dict[str, str]:
    """What the linter says about each contract."""
    lines = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=root,
        # First on the path, or the linter would look at the installed packages.
        env=os.environ | {"PYTHONPATH": ".:worker:scheduler:gateway"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    return {
        contract: verdict
        for contract in _contracts()
        for line in lines
        for verdict in ("KEPT", "BROKEN")
        if line.startswith(f"{contract} {verdict}")
    }
