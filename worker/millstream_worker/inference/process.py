"""Runs a device in a process of its own: a dead context, or a crash in native code, is survived.

The child is a fresh interpreter, never a fork: what CUDA has begun does not live through one. It
ends when this process does, however that ends. What it holds of the device can be read at any
moment, also while it computes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from millstream_worker.inference.budget import Own
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.engine import EngineDied, Loaded, Ran

#: Two numbers that the child writes and we read: taken, and of that in reserve.
ACCOUNT = struct.Struct("=QQ")
_END_S = 3.0
_CHILD = "millstream_worker.inference.child"


class ProcessEngine:
    """An `Engine` in a child. ``uuid`` is the one device that the child sees; empty: the host."""

    def __init__(self, specs: Callable[[str], ModelSpec], uuid: str = "") -> None:
        self._specs = specs
        self._account_fd = os.memfd_create("millstream-account")
        os.ftruncate(self._account_fd, ACCOUNT.size)
        self._account = mmap.mmap(self._account_fd, ACCOUNT.size)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", _CHILD, str(theirs.fileno()), str(self._account_fd), uuid],
                pass_fds=(theirs.fileno(), self._account_fd),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(x for x in sys.path if x)},
            )
        self._pipe = Connection(ours.detach())

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    def own(self) -> Own:
        """Return what the child holds of the device now."""
        reserved, cached = ACCOUNT.unpack_from(self._account, 0)
        return Own(reserved=reserved, cached=cached)

    def load(self, model: str) -> Loaded:
        """Bring a model to the device."""
        loaded: Loaded = self._ask("load", self._specs(model))
        return loaded

    def unload(self, model: str) -> Own:
        """Take a model off the device."""
        own: Own = self._ask("unload", model)
        return own

    def run(self, model: str, payloads: Sequence[Any], options: Mapping[str, Any]) -> Ran:
        """Run a batch. Raises `EngineDied` when the child does."""
        ran: Ran = self._ask("run", model, list(payloads), dict(options))
        return ran

    def sample(self, model: str, length: int) -> Any:
        """Return a payload for measuring."""
        return self._ask("sample", model, length)

    def release(self) -> Own:
        """Give back what nothing holds."""
        own: Own = self._ask("release")
        return own

    def close(self) -> None:
        """End the child: the surest way to have back all that it holds."""
        self._pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BufferError, OSError):
            self._account.close()
            os.close(self._account_fd)

    def _ask(self, verb: str, *args: Any) -> Any:
        try:
            self._pipe.send((verb, args))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            code = self._process.returncode
            raise EngineDied(f"the process of the device ended with {code}") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer
