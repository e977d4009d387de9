"""Python programs that start at once: each is forked from a process that has imported the house.

An interpreter that starts and imports what a command needs costs most of a second of CPU; a fork
costs some milliseconds. What was started is a process like any other: it has a pid, a directory,
an environment, files and an exit code of its own, it takes signals, and it runs its module as
``python -m`` does. It dies with the test that started it.

It does not show that a module finds what it imports, nor how long that takes: a program with a
variable of Python's own in its environment, and the tests of how the command line starts, have a
fresh interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).parents[1]
_PATH = os.pathsep.join(str(ROOT / part) for part in ("", "worker", "scheduler", "gateway"))
_PR_SET_PDEATHSIG = 1
_LENGTH = 4

#: What commands and processes import in the end. What starts threads when it is imported is no
#: good here: they would not live in a fork.
MODULES = (
    "aiohttp.web", "anyio._backends._asyncio", "prometheus_client", "redis.asyncio", "rich.console",
    "rich.live", "rich.table", "rich.tree", "structlog", "typer.main", "uvloop",
    "millstream.cli.answers", "millstream.cli.commands", "millstream.cli.failures",
    "millstream.cli.runs", "millstream.cli.worker", "millstream_gateway.config",
    "millstream_scheduler.__main__", "millstream_worker.__main__",
)  # fmt: skip


class Forked:
    """A process that was forked; used as `subprocess.Popen` is."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """Return how it ended; None when it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, once it has."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            told = os.read(self._ended, 16)
            os.close(self._ended)
            self.returncode = int(told or b"-9")
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to leave."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that programs are forked from, as seen by the tests."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.forks", str(theirs.fileno())],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": _PATH}, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        stdin: IO[Any] | None = None,
    ) -> Forked:
        """Start ``python -m`` with these words; without an input it reads nothing."""
        ended, telling = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        wanted = {"command": list(command), "cwd": str(cwd), "env": dict(env)}
        message = json.dumps(wanted).encode()
        asked = nothing if stdin is None else stdin.fileno()
        files = [asked, stdout.fileno(), stderr.fileno(), telling]
        try:
            socket.send_fds(self._channel, [len(message).to_bytes(_LENGTH, "big")], files)
            self._channel.sendall(message)
            pid = int.from_bytes(_exactly(self._channel, _LENGTH), "big")
        finally:
            os.close(telling)
            os.close(nothing)
        return Forked(pid, ended)

    def close(self) -> None:
        """End it, and all that was forked from it."""
        self._channel.close()
        self.process.wait()


@functools.cache
def nursery() -> Nursery:
    """Return the nursery of this test process."""
    made = Nursery()
    atexit.register(made.close)
    return made


def _exactly(channel: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = channel.recv(count - len(found))
        if not more:
            raise EOFError("the other side has gone")
        found += more
    return found


# -- the process that programs are forked from -----------------------------------------------------


class _Request(NamedTuple):
    wanted: dict[str, Any]
    files: list[int]


def _main() -> None:
    _die_with_parent()
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        request = _serve(channel)
    if request is not None:
        _become(request)


def _serve(channel: socket.socket) -> _Request | None:
    """Fork until the tests are over; return in a fork what it shall be, and None in the end."""
    telling: dict[int, int] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _reap(telling)
        if channel.fileno() not in ready:
            continue
        request = _received(channel)
        if request is None:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (woken, wakes, *telling.values()):
                os.close(each)
            return request
        telling[pid] = request.files.pop()
        for each in request.files:
            os.close(each)
        channel.sendall(pid.to_bytes(_LENGTH, "big"))


def _received(channel: socket.socket) -> _Request | None:
    head, files, _, _ = socket.recv_fds(channel, _LENGTH, 4)
    if not head:
        return None
    head += _exactly(channel, _LENGTH - len(head)) if len(head) < _LENGTH else b""
    return _Request(json.loads(_exactly(channel, int.from_bytes(head, "big"))), list(files))


def _reap(telling: dict[int, int]) -> None:
    for pid, told in list(telling.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del telling[pid]
            with contextlib.suppress(BrokenPipeError):
                os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(told)


def _become(request: _Request) -> None:
    """Be the program that was asked for."""
    _die_with_parent()
    for number, file in enumerate(request.files[:3]):
        os.dup2(file, number)
    for file in request.files:
        os.close(file)
    wanted = request.wanted
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    time.tzset()
    sys.path[0] = wanted["cwd"]
    sys.argv = list(wanted["command"])
    code = _run(wanted["command"][0])
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # To take the interpreter apart would touch every page that is shared: dearer than all else.
    os._exit(code)


def _run(module: str) -> int:
    """Run a module as the interpreter does, and return the exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - what the interpreter does with it
        traceback.print_exc()
    else:
        return 0
    return 1


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _main()
