"""The public servers that everybody starts with, over stdio and HTTP, in both eras."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from socket import create_server
from threading import Thread

import anyio
import pytest
from aiohttp import web as server

from millstream.errors import ToolInterrupted
from tests.tools.bench import benched, in_time, npm, pip

pytestmark = pytest.mark.mcp


async def test_time_answers_a_hundred_calls_at_once() -> None:
    """A program that speaks 2026, one process, no session a call."""
    entry = {"command": pip("mcp-server-time"), "args": ["--local-timezone", "UTC"]}
    async with (
        in_time(60),
        benched({"time": entry}) as bench,
        anyio.create_task_group() as group,
    ):
        now = await bench.call("time", "get_current_time", {"timezone": "UTC"})
        for _ in range(100):
            group.start_soon(bench.call, "time", "get_current_time", {"timezone": "UTC"})

    assert now.data["timezone"] == "UTC"
    assert bench.statuses == ["ok"] * 101


async def test_git_commits_and_declares_what_it_does(tmp_path: Path) -> None:
    """Its annotations tell reading from writing."""
    await git(tmp_path, "init", "--quiet")
    await git(tmp_path, "config", "user.email", "a@example.org")
    await git(tmp_path, "config", "user.name", "a")
    (tmp_path / "file").write_text("x")
    where = {"repo_path": str(tmp_path)}
    entry = {"command": pip("mcp-server-git"), "args": ["--repository", str(tmp_path)]}
    async with in_time(60), benched({"git": entry}) as bench:
        status = await bench.prepare("git", "git_status", where)
        commit = await bench.prepare("git", "git_commit", {**where, "message": "m"})
        await bench.call("git", "git_add", {**where, "files": ["file"]})
        answer = await bench.call("git", "git_commit", {**where, "message": "first"})
        log = await bench.call("git", "git_log", where)

    assert not answer.is_error
    assert "first" in log.text
    assert (status.needs_intent, commit.needs_intent) == (False, True)


async def git(path: Path, *arguments: str) -> None:
    await anyio.run_process(["git", *arguments], cwd=path)


@pytest.fixture
async def page() -> AsyncIterator[str]:
    """A page on the loopback."""

    async def answer(_: server.Request) -> server.Response:
        return server.Response(text="<h1>Tides</h1><p>High at noon.</p>", content_type="text/html")

    app = server.Application()
    app.router.add_get("/", answer)
    runner = server.AppRunner(app)
    await runner.setup()
    await server.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_fetch_reads_a_page(page: str) -> None:
    """It has a guard of its own against private addresses, which is opened for the test."""
    entry = {
        "command": pip("mcp-server-fetch"),
        "args": ["--ignore-robots-txt", "--allow-private-ips"],
    }
    async with in_time(60), benched({"fetch": entry}) as bench:
        answer = await bench.call("fetch", "fetch", {"url": page})

    assert "High at noon." in answer.text


async def test_filesystem_reads_and_writes(tmp_path: Path) -> None:
    """A program in TypeScript that speaks 2025."""
    entry = {"command": npm("mcp-server-filesystem"), "args": [str(tmp_path)]}
    file = str(tmp_path / "note")
    async with in_time(60), benched({"files": entry}) as bench:
        await bench.call("files", "write_file", {"path": file, "content": "hello"})
        answer = await bench.call("files", "read_text_file", {"path": file})
        outside = await bench.call("files", "read_text_file", {"path": "/etc/hostname"})

    assert "hello" in answer.text
    assert outside.is_error


async def test_memory_keeps_what_it_was_told_over_a_crash(tmp_path: Path) -> None:
    """Its process dies between two calls; the next call finds a new one with the same file."""
    environment = {"MEMORY_FILE_PATH": str(tmp_path / "memory.json")}
    entry = {"command": npm("mcp-server-memory"), "env": environment}
    entity = {"name": "tides", "entityType": "topic", "observations": []}
    async with in_time(60), benched({"memory": entry}) as bench:
        await bench.call("memory", "create_entities", {"entities": [entity]})
        await anyio.to_thread.run_sync(kill_children, "server-memory")
        try:
            graph = await bench.call("memory", "read_graph")
        except ToolInterrupted:
            # The call was written into the pipe of a process that was just dying.
            graph = await bench.call("memory", "read_graph")

    assert [found["name"] for found in graph.data["entities"]] == ["tides"]


def kill_children(name: str) -> None:
    found = subprocess.run(["pgrep", "-f", name], capture_output=True, text=True, check=False)
    own = {int(pid) for pid in found.stdout.split()} & _descendants(os.getpid())
    for pid in own:
        os.kill(pid, signal.SIGKILL)
    assert own


def _descendants(pid: int) -> set[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return {int(child) for child in found}.union(*[_descendants(int(child)) for child in found])


async def test_everything_over_stdio() -> None:
    """Structured content, images, and a tool that reports progress."""
    entry = {"command": npm("mcp-server-everything"), "args": ["stdio"]}
    async with in_time(60), benched({"everything": entry}) as bench:
        echo = await bench.call("everything", "echo", {"message": "hi"})
        image = await bench.call("everything", "get-tiny-image")
        weather = await bench.call("everything", "get-structured-content", {"location": "Chicago"})
        long = {"duration": 0.2, "steps": 2}
        slow = await bench.call("everything", "trigger-long-running-operation", long)

    assert echo.text == "Echo: hi"
    assert "image" in {block["type"] for block in image.content}
    assert weather.data["conditions"]
    assert "completed" in slow.text.lower()


@pytest.fixture
def everything() -> Iterator[str]:
    """The same server over HTTP, which keeps sessions."""
    with create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [npm("mcp-server-everything"), "streamableHttp"],
        env={**os.environ, "PORT": str(port)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"listening", line):
            break
    with process:
        reader = Thread(target=process.stderr.read)
        reader.start()
        yield f"http://127.0.0.1:{port}/mcp"
        process.kill()
        reader.join()


async def test_everything_over_http_with_sessions(everything: str) -> None:
    """Runs side by side, a session each, all answered, and a session that is ended."""
    entry = {"url": everything, "millstream": {"allowPrivate": True}}
    async with in_time(60), benched({"everything": entry}) as bench:
        async with anyio.create_task_group() as group:

            async def one(run: str) -> None:
                for _ in range(5):
                    answer = await bench.call("everything", "echo", {"message": run}, run=run)
                    assert answer.text == f"Echo: {run}"
                bench.caller.release_run(run)

            for number in range(10):
                group.start_soon(one, f"run-{number}")
        long = {"duration": 0.2, "steps": 2}
        slow = await bench.call("everything", "trigger-long-running-operation", long)

    assert "completed" in slow.text.lower()
    assert bench.statuses == ["ok"] * 51
