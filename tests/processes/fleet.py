"""Worker processes under a test's control: started, killed, frozen, thawed and told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests import forks
from tests.processes.effects import VARIABLE, Effects

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.01) -> Any:
    """Return what the condition returns once that is true; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


class WorkerProcess:
    """One worker process."""

    def __init__(
        self, number: int, directory: Path, effects: Path, settings: dict[str, Any]
    ) -> None:
        self.log_path = directory / f"worker-{number}.log"
        self._log = self.log_path.open("wb")
        given = {
            "http": 0, "metrics": -1, "host": "127.0.0.1", "log_format": "json",
            "log_level": "DEBUG", **settings, "parent": forks.nursery().process.pid,
        }  # fmt: skip
        self.process = forks.nursery().start(
            ["tests.processes.child", json.dumps(given)],
            cwd=ROOT,
            env={**os.environ, VARIABLE: str(effects)},
            stdout=self._log,
            stderr=self._log,
        )
        self.pid = self.process.pid
        self.frozen = False

    @property
    def log(self) -> str:
        """What it wrote."""
        return self.log_path.read_text("utf-8", "replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it logged, as far as the lines are whole."""
        lines = [x for x in self.log.splitlines() if x.startswith("{") and x.endswith("}")]
        return [json.loads(line) for line in lines]

    @property
    def alive(self) -> bool:
        """Whether the process runs; a frozen one does."""
        return self.process.poll() is None

    @property
    def token(self) -> str:
        """The name under which it writes."""
        return str(next(x["worker"] for x in self.events if x["event"] == "worker_started"))

    def until_started(self, seconds: float = 20) -> Self:
        """Return once it takes work."""

        def started() -> bool:
            assert self.alive, f"the worker ended with {self.process.returncode}:\n{self.log}"
            return '"worker_started"' in self.log

        wait_until(started, seconds, f"a worker takes work:\n{self.log}")
        return self

    def kill(self) -> float:
        """End it as a power cut would; return when."""
        at = time.monotonic()
        self.process.kill()
        self.process.wait()
        self.frozen = False
        return at

    def freeze(self) -> float:
        """Stop it without closing anything; return when."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal is on its way to every thread; it is stopped when the kernel says so.
        wait_until(lambda: _state(self.pid) in "TtZ", 5, "the worker is stopped", every=0.0005)
        self.frozen = True
        return time.monotonic()

    def thaw(self) -> float:
        """Let it go on; return when."""
        at = time.monotonic()
        os.kill(self.pid, signal.SIGCONT)
        self.frozen = False
        return at

    def terminate(self) -> float:
        """Ask it to leave; return when."""
        at = time.monotonic()
        self.process.terminate()
        return at

    def exit_code(self, seconds: float) -> int:
        """Return how it ended, once it has."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not leave in {seconds:g} s:\n{self.log}") from None

    def probe(self, path: str, seconds: float = 3) -> int:
        """Return the status that a probe answers."""
        found = re.search(r"health on port (\d+)", self.log)
        assert found, f"no port was said:\n{self.log}"
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{found[1]}{path}", timeout=seconds
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.alive:
            self.kill()
        self._log.close()


def _state(pid: int) -> str:
    """Return the kernel's letter for what a process does."""
    if not Path("/proc").exists():
        return "T"
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


class Fleet:
    """The workers of one test, and the effects of what they run."""

    def __init__(self, directory: Path, url: str, **settings: Any) -> None:
        self.effects = Effects(directory / "effects")
        self.workers: list[WorkerProcess] = []
        self._directory = directory
        self._settings = {"redis": url, **settings}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self.workers:
            worker.close()
        self.effects.close()

    def start(self, count: int = 1, **settings: Any) -> list[WorkerProcess]:
        """Start workers side by side and return once all take work."""
        begun = [self.launch(**settings) for _ in range(count)]
        return [worker.until_started() for worker in begun]

    def launch(self, **settings: Any) -> WorkerProcess:
        """Start a worker without waiting for it."""
        worker = WorkerProcess(
            len(self.workers), self._directory, self.effects.path, {**self._settings, **settings}
        )
        self.workers.append(worker)
        return worker

    def of(self, pid: int) -> WorkerProcess:
        """Return the worker with this process id."""
        return next(worker for worker in self.workers if worker.pid == pid)
