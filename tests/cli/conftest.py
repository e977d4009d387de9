"""What these tests share: a Redis with a worker on it, and one that nobody serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.inside import Inside
from tests.cli.program import APP, MCP, Program
from tests.servers import RedisServer


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The command line at a Redis that a worker serves. Nobody else uses it: not flushed."""
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")

    directory = tmp_path_factory.mktemp("served")
    (directory / "flows.py").write_text(APP, "utf-8")
    (directory / "mcp.json").write_text(MCP, "utf-8")
    with RedisServer("redis-server") as server:
        program = Program(directory, {"MILLSTREAM_REDIS": server.url})
        worker = program.start(
            "worker", "flows:app", "--http", "-1", "--metrics", "-1", "--lease", "2",
            "--grace", "0", "--log-format", "json", "--mcp", "mcp.json",
        )  # fmt: skip
        try:
            worker.until("worker_started")
            yield program
        finally:
            worker.stop()


@pytest.fixture
def program(tmp_path: Path, redis_server: RedisServer) -> Program:
    """The command line at an empty Redis, in a directory with an application."""
    redis_server.flush()
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    return Program(tmp_path, {"MILLSTREAM_REDIS": redis_server.url})


@pytest.fixture
def inside(
    tmp_path: Path,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Inside:
    """The command line in this process, at an empty Redis, in an empty directory."""
    redis_server.flush()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLSTREAM_REDIS", redis_server.url)
    monkeypatch.setenv("COLUMNS", "120")
    return Inside(tmp_path, capsys)
