"""A Redis for the time of one command: a private ``redis-server``, or fakeredis behind a port.

Promise: it listens on the loopback address alone, writes nothing outside a directory of its own,
and is gone with the process that started it. What it held is gone too.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from millstream.errors import MissingExtra, StoreUnavailable

_PROGRAMS = ("redis-server", "valkey-server")
_MINIMUM_MAJOR = 7
_START_LIMIT_S = 10.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalServer:
    """Where it is, and what it is."""

    url: str
    program: str


@contextlib.contextmanager
def local_server() -> Iterator[LocalServer]:
    """Start a server, stop it at the end. Raises `MissingExtra` when there is none to start."""
    program = next(filter(_fit, _PROGRAMS), None)
    if program is None and find_spec("fakeredis") is None:
        raise MissingExtra("memory", "neither redis-server nor fakeredis")

    with tempfile.TemporaryDirectory(prefix="millstream-", ignore_cleanup_errors=True) as directory:
        port = _free_port()
        process = subprocess.Popen(  # noqa: S603 - one of a few programs, by name
            [*_guard(), *_command(program, port, directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Not of our group: Ctrl-C is for the worker, which still has to write what it did.
            start_new_session=True,
        )
        try:
            _await_port(process, program or "fakeredis", port)
            yield LocalServer(f"redis://{_HOST}:{port}/0", program or "fakeredis")
        finally:
            process.kill()
            process.wait()


def _command(program: str | None, port: int, directory: str) -> list[str]:
    if program is None:
        return [sys.executable, "-m", "millstream.store.loopback", str(port)]

    return [
        *(program, "--port", str(port), "--bind", _HOST, "--dir", directory),
        *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    ]


def _fit(program: str) -> bool:
    """Whether the program is installed and not too old."""
    if shutil.which(program) is None:
        return False

    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - one of two names
    found = re.search(r"v=(\d+)\.", said.stdout)
    return found is not None and int(found[1]) >= _MINIMUM_MAJOR


def _guard() -> list[str]:
    """Return what makes the kernel end the server when we are killed, where that exists."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "KILL", "--"] if program else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]

    return port


def _await_port(process: subprocess.Popen[bytes], program: str, port: int) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
            return
        time.sleep(0.01)

    raise StoreUnavailable(f"{_HOST}:{port}", f"{program} did not start")
