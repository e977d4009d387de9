"""A task for each run, and none that outlives the worker.

The promise is a task group's: who starts tasks here also waits for their end, and an error that
escapes one is not lost. A group of anyio keeps it at five times the price of a task, and a worker
starts tens of thousands of runs a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

#: What code that an author wrote may raise, and end nothing but itself.
ERRORS = (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError)


def own(error: BaseException) -> BaseException:
    """Return an error of the running task's own making; raise a cancellation that was asked for."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
    return error


class Tasks:
    """The tasks of one worker. ``escaped`` is told of an error that a task did not handle."""

    def __init__(self, escaped: Callable[[BaseException], None]) -> None:
        self._escaped = escaped
        # In the order of their start, so that nothing depends on where objects lie in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._end)

    async def end(self, deadline: float) -> None:
        """Return when all have ended; cancel those that have not by the deadline.

        ``deadline`` is by the clock of the loop. What does not end although it was cancelled is
        given up after as long as a worker may take to leave.
        """
        with anyio.CancelScope(deadline=deadline):
            await self._until_empty()
        await self.cancel()

    async def cancel(self, patience_s: float = 1.0) -> None:
        """Cancel all; return when they have ended, or are past waiting for."""
        for task in self._tasks:
            task.cancel()
        with anyio.move_on_after(patience_s, shield=True):
            await self._until_empty()

    def disown(self) -> None:
        """Have the loop forget those that do not end although they were cancelled.

        Whoever closes a loop waits for every task that it knows, without end.
        """
        for task in self._tasks:
            # Documented, for all its name; and what is left behind knowingly needs no warning.
            asyncio.tasks._unregister_task(task)  # noqa: SLF001
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001

    async def _until_empty(self) -> None:
        while self._tasks:
            self._ended.clear()
            await self._ended.wait()

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not self._tasks:
            # Whoever waits, waits for the last of them.
            self._ended.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._escaped(error)
