"""The processes of the demo: two workers, a scheduler, and where they write.

Promise: whatever happens, `Stage.close` leaves no process and, unless it is told to keep it, no
directory behind. Every process is started in a session of its own, so that a Ctrl-C in the
terminal reaches the demo alone, and the demo ends them in good order.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from millstream import Client
from millstream.cli.demo import effects
from millstream.errors import RunError

WORKERS = ("A", "B")
LEASE_S = 2.0
_TARGET = "millstream.cli.demo.study:app"
_TAP = Path(__file__).with_name("tap.py")
_START_S = 30.0
_END_S = 5.0


class DemoFailed(RunError):
    """The demo could not be brought to its end."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, and where it writes what it has to say."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None

    def last_words(self) -> str:
        """Return the last line that it wrote."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")[:300]


class Stage:
    """What the demo plays on. ``url`` is a Redis that nobody else uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.directory = Path(tempfile.mkdtemp(prefix="millstream-demo-"))
        self.effects = self.directory / "effects.jsonl"
        self.workers: dict[str, Process] = {}
        self._processes: list[Process] = []

    # -- begin ---------------------------------------------------------------------------------

    def start_workers(self, concurrency: int) -> None:
        """Start the workers. They need a moment until they take work."""
        for name in WORKERS:
            servers = self._declare_servers(name)
            command = [
                *(sys.executable, "-m", "millstream.cli", "worker", _TARGET),
                *("--redis", self.url, "--concurrency", str(concurrency)),
                *("--lease", f"{LEASE_S:g}", "--grace", "2", "--http", "-1", "--metrics", "-1"),
                *("--mcp", str(servers), "--log-format", "json", "--log-level", "DEBUG"),
            ]
            environment = {effects.FILE: str(self.effects), effects.WORKER: name}
            self.workers[name] = self._start(f"worker-{name}", command, environment)

    def start_scheduler(self) -> None:
        """Start a scheduler. Nothing here depends on it: workers recover from each other."""
        ports = ("--http", "-1", "--metrics", "-1")
        command = [sys.executable, "-m", "millstream.cli", "scheduler", "--redis", self.url, *ports]
        self._start("scheduler", [*command, "--log-format", "json"])

    async def until_ready(self, client: Client) -> dict[str, str]:
        """Return the name of each worker by its token, once all of them take work."""
        names = {process.popen.pid: name for name, process in self.workers.items()}
        with anyio.move_on_after(_START_S):
            while True:
                self.check()
                living = await client.agents()
                tokens = {x.token: names[x.pid] for x in living if x.pid in names}
                if len(tokens) == len(names):
                    return tokens
                await anyio.sleep(0.05)

        raise DemoFailed(f"the workers did not start within {_START_S:g} s; look with --keep")

    # -- meanwhile -----------------------------------------------------------------------------

    def check(self, expected_dead: str = "") -> None:
        """Raise `DemoFailed` when a process has ended that should not have."""
        for process in self._processes:
            if not process.alive and process.name != f"worker-{expected_dead}":
                raise DemoFailed(f"{process.name} ended by itself: {process.last_words()}")

    def kill(self, name: str) -> int:
        """Kill a worker as a power cut would; return its process id."""
        process = self.workers[name].popen
        process.kill()
        process.wait()
        return process.pid

    # -- end -----------------------------------------------------------------------------------

    def close(self, *, keep: bool, at_once: bool) -> None:
        """End every process, workers in good order unless it must be at once."""
        deadline = time.monotonic() + (0.0 if at_once else _END_S)
        for process in self._processes:
            _signal(process, signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.popen.wait()
        _sweep_away(self.directory)
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    # -- below ---------------------------------------------------------------------------------

    def _declare_servers(self, worker: str) -> Path:
        """Write the file that declares the MCP server, which is counted on its way."""
        server = [sys.executable, "-m", "mcp_server_git"]
        arguments = ["-I", "-S", str(_TAP), str(self.effects), worker, *server]
        read_only = {"effect": "read-only"}
        ours = {
            "allow": ["git_show", "git_status"],
            "tools": {"git_show": read_only, "git_status": read_only},
        }
        entry = {"command": sys.executable, "args": arguments, "millstream": ours}
        file = self.directory / f"servers-{worker}.json"
        file.write_text(json.dumps({"mcpServers": {"git": entry}}, indent=2), "utf-8")
        return file

    def _start(
        self, name: str, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> Process:
        log = self.directory / f"{name}.log"
        # Settings of the user's own workers are not meant for these.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MILLSTREAM_")}
        with log.open("wb") as sink:
            popen = subprocess.Popen(  # noqa: S603 - our own programs
                [*_guard(), *command],
                cwd=self.directory,
                env=kept | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self._processes.append(process)
        return process


def _guard() -> list[str]:
    """Return what makes the kernel end a process when we are killed, where that exists."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL", "--"] if program else []


def _signal(process: Process, number: int) -> None:
    """Signal a process and all that it started and did not put elsewhere."""
    if process.alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.popen.pid, number)


def _sweep_away(directory: Path) -> None:
    """Wait until the servers of the workers have followed them; end those that have not."""
    deadline = time.monotonic() + 3.0
    while left := _named_after(directory):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _named_after(directory: Path) -> list[int]:
    """Return the processes that were given a path in our directory, where that can be seen."""
    name = os.fsencode(directory)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if name in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
