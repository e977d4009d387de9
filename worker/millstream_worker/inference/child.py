"""The process of a device: ``python -m millstream_worker.inference.child``, started by `process`.

It answers one question after the other until the pipe ends, which it does when the worker does;
and the kernel kills it then, should it hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from millstream.errors import said
from millstream_worker.inference.backends import Backend
from millstream_worker.inference.budget import Own
from millstream_worker.inference.catalogue import make
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.engine import Engine, EngineDied, Memory, NoMemory, Ran
from millstream_worker.inference.handing import Claims, NotBegun, packed
from millstream_worker.inference.process import ACCOUNT, BEAT, BEGUN, SHARED

_ACCOUNT_S = 0.05
_PR_SET_PDEATHSIG = 1


class _Child:
    def __init__(self, pipe: Connection, account: mmap.mmap, claims: Claims, uuid: str) -> None:
        self._pipe = pipe
        self._account = account
        self._claims = claims
        self._specs: dict[str, ModelSpec] = {}
        self._memory: Memory = NoMemory()
        self._uuid = uuid
        self._engine = Engine("cuda:0" if uuid else "cpu", self._make, self._make_memory)

    def serve(self) -> None:
        """Answer until nobody asks any more."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                ticket, handed, verb, args = self._pipe.recv()
                if handed and not self._claims.take(ticket):
                    answer: Any = NotBegun()
                else:
                    answer = self._answer(ticket, verb, args)
                self._pipe.send((ticket, packed(answer)))
                self._write(answer.own if isinstance(answer, Ran) else self._memory.own())

    def write_for_ever(self) -> None:
        """Keep the account up to date while a batch runs, and show that this process lives."""
        beat = 0
        while True:
            # A reading that fails costs a reading; a sign of life that stops costs the process.
            with contextlib.suppress(Exception):
                self._write(self._memory.own())
            beat += 1
            BEAT.pack_into(self._account, ACCOUNT.size, beat)
            time.sleep(_ACCOUNT_S)

    def _answer(self, ticket: int, verb: str, args: tuple[Any, ...]) -> Any:
        if verb == "load":
            (spec,) = args
            self._specs[spec.name] = spec
            args = (spec.name,)
        if verb == "run":
            BEGUN.pack_into(self._account, ACCOUNT.size + BEAT.size, ticket)
        ask: Callable[..., Any] = getattr(self._engine, verb)
        try:
            return ask(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to hear of it
            return EngineDied(f"{type(error).__name__}: {said(error)}")

    def _make(self, model: str) -> Backend:
        return make(self._specs[model])

    def _make_memory(self) -> Memory:
        if self._uuid:
            from millstream_worker.inference.monitors.cuda import TorchMemory  # noqa: PLC0415

            self._memory = TorchMemory("cuda:0")
        return self._memory

    def _write(self, own: Own) -> None:
        ACCOUNT.pack_into(self._account, 0, own.reserved, own.cached)


def main() -> None:
    """Serve one device."""
    pipe_fd, account_fd, uuid = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    _die_with(int(sys.argv[4]))
    if uuid:
        # Before any library looks: this process sees its one device, under whatever number.
        os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    account, claims = mmap.mmap(account_fd, SHARED), Claims(account_fd, SHARED)
    child = _Child(Connection(pipe_fd), account, claims, uuid)
    threading.Thread(target=functools.partial(child.write_for_ever), daemon=True).start()
    child.serve()
    # A device that hangs must not keep the process: nothing here is worth a slow farewell.
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its worker: who hangs reads no end of a pipe."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


if __name__ == "__main__":
    main()
