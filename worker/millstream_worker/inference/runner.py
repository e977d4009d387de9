"""The thread of a device: runs one job after the other, with at most one ahead.

The job that is ahead can be taken back until it begins, so a batch stays open until its launch.
The thread starts it the moment the device is free, without asking the event loop, which may be
busy. It is a daemon: a device that hangs must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from millstream_worker.inference import interpreter

Job = Callable[[], Any]
Done = Callable[[Any], None]


class Runner:
    """A thread. ``submit`` and ``withdraw`` belong to the event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._condition = threading.Condition()
        self._jobs: deque[tuple[Job, Done]] = deque()
        self._under_way = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def under_way(self) -> int:
        """Jobs that were submitted and whose end was not heard of: 0, 1 or 2."""
        return self._under_way

    def submit(self, job: Job, done: Done) -> None:
        """Run a job; ``done`` is called on the event loop with what it returned."""
        assert self._under_way < 2, "at most one job is ahead"
        self._under_way += 1
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            interpreter.take_turns()
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        with self._condition:
            self._jobs.append((job, done))
            self._condition.notify()

    def withdraw(self) -> bool:
        """Take back the job that has not begun; False when it has."""
        with self._condition:
            if not self._jobs:
                return False
            self._jobs.pop()
        self._under_way -= 1
        return True

    def close(self) -> None:
        """Begin nothing more."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            self._condition.notify()

    def _run(self) -> None:
        assert self._loop is not None
        while True:
            with self._condition:
                while not self._jobs and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                job, done = self._jobs.popleft()
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - for whoever waits for it to judge
                result = error
            try:
                self._loop.call_soon_threadsafe(self._ended, done, result)
            except RuntimeError:
                return  # the loop has gone, and the process with it

    def _ended(self, done: Done, result: Any) -> None:
        self._under_way -= 1
        done(result)
