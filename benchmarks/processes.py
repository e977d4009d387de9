"""Child processes: started in groups of their own, watched, and ended by their ids.

Promise: no child outlives the benchmark. Each leads a group, so that what it starts itself ends
with it; and where ``setpriv`` is at hand the kernel ends it when the benchmark is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

_GUARD = shutil.which("setpriv")
_ANSWER_LIMIT_S = 300.0


class Failed(Exception):
    """A measure could not be taken: what ended, or did not come, and what it said."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process and its children take, in MiB."""

    rss: float
    pss: float


class Child:
    """One process and whatever it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path,
        speaks: bool = False,
        user: str | None = None,
    ) -> None:
        self.log = log
        guard = [_GUARD, *_as(user), "--pdeathsig", "KILL", "--"] if _GUARD else []
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [*guard, *command],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else file,
                stderr=file,
                start_new_session=True,
                user=None if _GUARD else user,
            )
        self.pid = self._process.pid
        self._known: list[psutil.Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and what it started, as a power cut would."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self, seconds: float = 10.0) -> None:
        """Ask it to leave; insist when it does not."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            return
        self.kill()

    def ask(self, **question: Any) -> Any:
        """Send one line of JSON and return the line that answers."""
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        except OSError:
            raise self.failed("it does not listen any more") from None
        return self.hear(stdout)

    def hear(self, stdout: IO[bytes] | None = None) -> Any:
        """Return the next line that it says, as JSON."""
        pipe = stdout or self._pipes()[1]
        if not select.select([pipe], [], [], _ANSWER_LIMIT_S)[0]:
            raise self.failed(f"no answer in {_ANSWER_LIMIT_S:g} s")
        line = pipe.readline()
        if not line:
            raise self.failed("it ended")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise self.failed(answer["error"])
        return answer

    def failed(self, what: str) -> Failed:
        """Return an error with the end of what it wrote."""
        said = self.log.read_text("utf-8", "replace")[-1500:] if self.log.exists() else ""
        return Failed(f"{self.log.stem}: {what}\n{said}")

    def cpu_s(self, *, changing: bool = False) -> float:
        """Return the processor time that it and its children have used.

        Looking for children takes milliseconds, so it is done once, unless they keep changing.
        """
        if changing or not self._known:
            self._known = self._family()
        total = 0.0
        for each in self._known:
            with contextlib.suppress(psutil.Error):
                times = each.cpu_times()
                total += times.user + times.system
                if changing:
                    total += times.children_user + times.children_system
        return total

    def fine_cpu_s(self) -> float:
        """Return the same to the nanosecond, for threads that live: what idling costs."""
        total = 0
        for each in self._family():
            for task in Path(f"/proc/{each.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(task.read_text().split()[0])
        return total / 1e9

    def memory(self) -> Memory:
        """Return what it and its children take."""
        found = [each.memory_full_info() for each in self._family()]
        return Memory(sum(x.rss for x in found) / 2**20, sum(x.pss for x in found) / 2**20)

    def _family(self) -> list[psutil.Process]:
        try:
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        except psutil.Error:
            return []

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _as(user: str | None) -> list[str]:
    return [] if user is None else ["--reuid", user, "--regid", user, "--clear-groups"]


def wait_until(
    condition: Callable[[], Any], seconds: float, what: str, children: Sequence[Child] = ()
) -> Any:
    """Return what the condition returns once that is true; raise `Failed` when it stays false."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        for child in children:
            if not child.alive:
                raise child.failed(f"ended before {what}")
        if time.monotonic() > deadline:
            said = children[0].failed("said").args[0] if children else ""
            raise Failed(f"not within {seconds:g} s: {what}\n{said}")
        time.sleep(0.001)
