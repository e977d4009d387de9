"""The command line as a user calls it: a process, what it wrote, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests import forks

APP = """
import anyio
from millstream import Context, RetryPolicy, Workflows

app = Workflows()
empty = Workflows()
number = 7
app.schedule("yearly", "add", {"a": 1, "b": 2}, cron="@yearly", timezone="Europe/Berlin")

def sink() -> None:
    raise ValueError("the tide is out")

async def double(value: int) -> int:
    await anyio.sleep(0.02)
    return 2 * value

@app.workflow()
async def add(ctx: Context, a: int, b: int = 1) -> int:
    ctx.emit("adding", {"a": a})
    await ctx.gather(*(ctx.step(double, n) for n in range(2)))
    await ctx.sleep(0.05)
    return a + b

@app.workflow(version="2")
async def fails(ctx: Context) -> None:
    await ctx.step(sink, retry=RetryPolicy(max_attempts=2, initial=0.01))

@app.workflow()
async def slow(ctx: Context) -> None:
    await anyio.sleep(600)

@app.workflow()
async def calls(ctx: Context, server: str, tool: str) -> str:
    return (await ctx.tool(server, tool, {})).text


@app.workflow()
async def listens(ctx: Context) -> object:
    return await ctx.wait_signal("go")


@app.workflow(events="steps")
async def speaks(ctx: Context, fail: bool = False) -> int:
    found = await ctx.step(double, 3)
    ctx.emit("found", {"it": found})
    if fail:
        await ctx.step(sink, retry=RetryPolicy(max_attempts=2, initial=0.01))
    return found


@app.workflow()
async def asks(ctx: Context) -> list[object]:
    found = await ctx.approve("May I?")
    return [found.by, found.comment, found.approved]
"""

#: One of the public servers, started by the worker at the first call.
MCP = json.dumps(
    {"mcpServers": {"time": {"command": sys.executable, "args": ["-m", "mcp_server_time"]}}}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """What stands on stderr."""
        return self.err.splitlines()


@dataclass(frozen=True, slots=True)
class Program:
    """Calls ``millstream`` in a directory, with an environment."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 60) -> Answer:
        """Run a command to its end."""
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as asked,
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        ):
            asked.write(stdin)
            asked.seek(0)
            process = self._process(arguments, asked, out, err)
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
                process.wait()
            out.seek(0)
            err.seek(0)
            return Answer(code, out.read(), err.read())

    def start(self, *arguments: str) -> Started:
        """Start a command that goes on until it is stopped."""
        out = (self.directory / f"out-{time.monotonic_ns()}").open("w+")
        err = (self.directory / f"err-{time.monotonic_ns()}").open("w+")
        with out, err:
            process = self._process(arguments, None, out, err)
        return Started(process, Path(out.name), Path(err.name))

    def _process(
        self, arguments: Sequence[str], stdin: IO[str] | None, stdout: IO[str], stderr: IO[str]
    ) -> subprocess.Popen[bytes] | forks.Forked:
        command, environ = ["millstream.cli", *arguments], self._environ()
        if any(name.startswith("PYTHON") for name in self.environment):
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.directory, env=environ, stdin=stdin or subprocess.DEVNULL,
                stdout=stdout, stderr=stderr,
            )  # fmt: skip
        return forks.nursery().start(
            command,
            cwd=self.directory,
            env=environ,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

    def _environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MILLSTREAM_", "REDIS_"))}
        return {**kept, "COLUMNS": "120", **self.environment}


@dataclass(frozen=True, slots=True)
class Started:
    """A command that runs."""

    process: subprocess.Popen[bytes] | forks.Forked
    out: Path
    err: Path

    def until(self, text: str, *, stream: str = "err", seconds: float = 30) -> str:
        """Return what was written once it has a text in it."""
        file = self.out if stream == "out" else self.err
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if text in file.read_text("utf-8"):
                return file.read_text("utf-8")
            if self.process.poll() is not None:
                break
            time.sleep(0.02)

        raise AssertionError(f"no {text!r} in {file.read_text('utf-8')!r}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20) -> Answer:
        """Send a signal and return how the command ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
        return Answer(code, self.out.read_text("utf-8"), self.err.read_text("utf-8"))
