"""Virtual time: an event loop whose clock jumps to the next timer when nothing is left to do.

The loop also knows to which simulated process a callback belongs, by a context variable that
tasks and timers inherit: a frozen process's callbacks wait, a dead one's never run. That is a
crash at any await, and no cleanup code runs, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableSet
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from anyio._backends import _asyncio as anyio_asyncio

T = TypeVar("T")
#: When the virtual clock starts, in epoch seconds.
EPOCH = 1_800_000_000.0
#: More callbacks than this at one instant mean that somebody is spinning.
MOST_AT_ONCE = 100_000


class Stuck(Exception):
    """Nothing will ever happen again, or time will never pass again."""


class Ordered(MutableSet[T]):
    """A set that is iterated in the order of insertion, whatever the hashes are."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: T) -> None:
        """Add one item."""
        self._items[value] = None

    def discard(self, value: T) -> None:
        """Remove one item, if it is there."""
        self._items.pop(value, None)


class Host:
    """What callbacks belong to: a process, or a thread of it. It may be frozen, or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        #: Called once so many more callbacks have run: how a crash hits between any two awaits.
        self._countdown = 0
        self._then: Callable[[], None] = lambda: None
        self._waiting: list[asyncio.Handle] = []

    def after(self, callbacks: int, then: Callable[[], None]) -> None:
        """Have something happen to this process after so many of its callbacks."""
        self._countdown, self._then = callbacks, then
        if callbacks <= 0:
            then()

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether a callback may run now; if not it waits for the thaw, or for the clearing up."""
        if self._countdown:
            self._countdown -= 1
            if not self._countdown:
                self._then()
        if self.dead or self.frozen:
            self._waiting.append(handle)
            return False

        return True

    def thaw(self, loop: VirtualLoop) -> None:
        """Run what has waited, in its order."""
        self.dead = self.frozen = False
        waiting, self._waiting = self._waiting, []
        loop.resume(waiting)


#: To whom the running callback belongs; None: the simulation itself, or the network.
HOST: ContextVar[Host | None] = ContextVar("host", default=None)


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order every time."""

    _number = 0

    def __new__(cls, *args: Any, **kwargs: Any) -> _Task:
        task: _Task = super().__new__(cls)
        _Task._number += 1
        task._number = _Task._number
        return task

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without sockets, threads or waiting."""

    _ready: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._at_once = 0
        #: Timers, soonest first, and among equals in the order in which they were set.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = itertools.count()
        #: Raised as soon as the running callback is over: the end of the history.
        self.halt: BaseException | None = None
        #: How far the clock of Redis is off, in seconds.
        self.redis_offset = 0.0
        self.set_task_factory(lambda loop, coro, **kw: _Task(coro, loop=loop, **kw))
        self.set_exception_handler(self._tripped)

    def time(self) -> float:
        """Return the virtual time, in seconds since the start."""
        return self._now

    def redis_time(self) -> float:
        """Return what ``time.time()`` is on the machine of Redis."""
        return EPOCH + self._now + self.redis_offset

    def resume(self, handles: Iterable[asyncio.Handle]) -> None:
        """Run callbacks that had to wait."""
        self._ready.extend(handles)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._set), handle))
        return handle

    def outside(self, at: float, action: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call something at a time, as nobody's callback: the network, or the director."""
        return self.call_at(max(at, self._now), action, *args, context=Context())

    def start(self, host: Host, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start the first task of a process."""
        context = Context()
        context.run(HOST.set, host)
        return self.create_task(main, context=context)

    # -- what the base class calls -------------------------------------------------------------

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not ready and not self._stopping:
            if not timers:
                raise Stuck("nothing is left to happen")
            self._now = max(self._now, timers[0][0])
            self._at_once = 0
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])

        self._at_once += len(ready)
        if self._at_once > MOST_AT_ONCE:
            raise Stuck(f"a hot loop at {self._now:.6f}: {ready[0]!r}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            host = handle._context.get(HOST)
            if host is None or host.admits(handle):
                handle._run()
            if self.halt is not None:
                halt, self.halt = self.halt, None
                raise halt

    def _tripped(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Stop: a callback raised. What a task raised is the concern of whoever awaits it."""
        if "handle" in context and isinstance(error := context.get("exception"), Exception):
            self.halt = self.halt or error

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers leave the heap when their time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There is nobody in another thread to wake this loop."""


@contextlib.contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """Give a loop on which time is virtual, also the time that fakeredis reads."""
    loop = VirtualLoop()
    real, precise = time.time, time.perf_counter
    scope = anyio_asyncio.CancelScope
    construct = scope.__init__

    def ordered(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        self._child_scopes = Ordered()

    time.time, time.perf_counter = loop.redis_time, loop.time
    scope.__init__ = ordered  # type: ignore[method-assign]
    try:
        yield loop
    finally:
        time.time, time.perf_counter = real, precise
        scope.__init__ = construct  # type: ignore[method-assign]
        loop.close()
