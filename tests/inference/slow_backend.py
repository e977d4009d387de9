"""A backend for workers under test: it writes down what it computes, and takes a while."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream_worker.inference.backends import Backend, Prepared
from tests.processes.effects import BEGUN, DONE, Effects


class Recording(Backend):
    """Answers ``run:step`` with the process that computed it."""

    padding = False
    step = 1
    settings: Mapping[str, Any] | None = {
        "pause": 0.05, "deadly": "", "marks": "", "block": "", "loading": 0.0, "sample": "",
    }  # fmt: skip

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        return Prepared(item, 1)

    def sample(self, length: int) -> Any:
        name = self.given.options.get("sample")
        if name == "raises":
            raise ValueError(f"no sample of {length}")
        return name or None

    def load(self, device: str) -> None:
        self._effects = Effects.of_environment()
        if loading := float(self.given.options.get("loading", 0)):
            # Unlike CDLL, PyDLL does not give up the interpreter while it calls.
            ctypes.PyDLL(None).usleep(int(loading * 1e6))

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        for payload in payloads:
            run, _, step = payload.partition(":")
            self._effects.write(BEGUN, run, int(step or 0))
        self._die_of(payloads)
        self._block()
        time.sleep(float(self.given.options.get("pause", 0.05)))
        for payload in payloads:
            run, _, step = payload.partition(":")
            self._effects.write(DONE, run, int(step or 0))
        return [f"{payload} by {os.getpid()}" for payload in payloads]

    def _die_of(self, payloads: Sequence[Any]) -> None:
        """Kill this process: at any batch with ``deadly``, and once a file of ``marks``."""
        deadly, marks = self.given.options.get("deadly"), self.given.options.get("marks")
        if deadly and any(payload.startswith(deadly) for payload in payloads):
            os.kill(os.getpid(), signal.SIGKILL)
        for mark in Path(marks).glob("*") if marks else ():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def _block(self) -> None:
        """Never return, once a file ``block`` is there; the next process does not find it."""
        block = self.given.options.get("block")
        if block and Path(block).exists():
            Path(block).unlink()
            threading.Event().wait()
