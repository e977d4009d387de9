"""Count what is really done, beside the journal and unknown to it.

Every effect is one line at the end of a file: who did it, in which run, under which step key. A
step of a workflow writes its line when it begins; what reaches the MCP server is written by
`tap`. The lines are later held against the journals (`proof`), so nothing here asks millstream
what it thinks it did.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

#: Where the lines go, and under which name this worker signs them. Unset: nothing is counted.
FILE = "MILLSTREAM_DEMO_EFFECTS"
WORKER = "MILLSTREAM_DEMO_WORKER"

P = ParamSpec("P")
T = TypeVar("T")

#: The run that is at work here: each run has a context of its own, and its threads inherit it.
_run: ContextVar[str] = ContextVar("run", default="")


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the file."""

    worker: str
    #: The run and the step key; of a call that reached a server only its idempotency key is known.
    run: str = ""
    step: str = ""
    call: str = ""


def belong_to(run_id: str) -> None:
    """Say which run the steps that follow in this context belong to."""
    _run.set(run_id)


def counted(function: Callable[P, T]) -> Callable[P, T]:
    """Have a step function leave a line when it begins. A run calls each function once."""

    @functools.wraps(function)
    def step(*args: P.args, **kwargs: P.kwargs) -> T:
        file = os.environ.get(FILE)
        if file:
            _append(file, run=_run.get(), step=f"{function.__qualname__}#0")
        return function(*args, **kwargs)

    return step


class Reader:
    """Reads the file as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self._rest = b""

    def news(self) -> list[Effect]:
        """Return the effects since the last call."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._at)
                data = stream.read()
        except FileNotFoundError:
            return []

        self._at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [Effect(**json.loads(line)) for line in lines]


def _append(file: str, **fields: Any) -> None:
    line = json.dumps({"worker": os.environ.get(WORKER, ""), **fields}) + "\n"
    # One write at the end of the file: lines of several processes never mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
