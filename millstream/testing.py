"""Test workflows without a server: run them, jump in time, crash a worker and see what is kept.

    async with Harness(app, tools={"time": {"now": lambda: "noon"}}) as bench:
        bench.crash_after(2)                       # the worker dies when two steps are recorded
        run = await bench.client.enqueue("research", {"topic": "tides"})
        await bench.jump(3600)                     # a sleep of an hour is over
        assert await run.result(timeout=5) == ...

Everything is real but the server: the same client, the same worker and the same scripts, on an
in-memory store of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

import anyio

from millstream.client import Client
from millstream.errors import MissingExtra, UnknownWorkflow
from millstream.events import Event, StepEnded
from millstream.store import runs
from millstream.store.connection import Connection
from millstream.store.embedded import JumpingClock, jumping_clock
from millstream.store.keys import Lane
from millstream.workflow import Workflows

_names = itertools.count()


class Harness:
    """One worker and one client on a store of their own. Use it as ``async with Harness(app)``.

    ``tools`` are functions that answer `Context.tool`, by server and name, or an object of the
    worker's own making, such as its ``ToolCaller`` on real servers. ``models`` are functions that
    answer `Context.infer`, by name, each of one input; one that is an async generator of text
    streams it. Or the worker's own `InferenceService`. ``seal_keys`` names the keys that
    values are sealed under. Needs the extras ``memory`` and ``worker``.
    """

    def __init__(
        self,
        workflows: Workflows,
        *,
        tools: Mapping[str, Mapping[str, Any]] | Any = None,
        models: Mapping[str, Any] | Any = None,
        seal_keys: str | None = None,
    ) -> None:
        self.client: Client
        #: Every event of the worker, in order: what happened, for assertions.
        self.events: list[Event] = []
        #: How often the worker has crashed.
        self.crashes = 0
        self._workflows = workflows
        self._embedded = _load("millstream_worker.embedded")
        functions = tools is None or isinstance(tools, Mapping)
        self._tools = self._embedded.FunctionTools(tools or {}) if functions else tools
        fake = models is None or isinstance(models, Mapping)
        self._models = self._embedded.FunctionModels(models or {}) if fake else models
        self._url = f"memory://harness-{next(_names)}"
        self._seal_keys = seal_keys
        self._clock: JumpingClock
        self._connection: Connection
        self._group: anyio.abc.TaskGroup
        self._stack = AsyncExitStack()
        self._worker: Any = None
        self._countdown: int | None = None
        self._dead = anyio.Event()
        #: The worker has crashed, and the one that takes over is not there yet.
        self._dying = False

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        self._clock = self._stack.enter_context(jumping_clock())
        self._connection = Connection(self._url)
        self._stack.push_async_callback(self._connection.aclose)
        self._group = await enter(anyio.create_task_group())
        self._stack.callback(self._group.cancel_scope.cancel)
        self.client = await enter(Client(self._url, seal_keys=self._seal_keys))
        await self.client.schedules.apply(list(self._workflows.schedules))
        await self._start()
        self._group.start_soon(self._replace_the_dead)
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        with contextlib.suppress(AttributeError):
            self._worker.crash()
        await self._stack.__aexit__(None, None, None)

    async def run(self, workflow: str, arguments: Any = None, *, timeout: float = 10.0) -> Any:
        """Run a workflow to its end and return its result. Raises what `Run.result` raises.

        And `UnknownWorkflow` at once: there is no other worker that may know it.
        """
        if self._worker.workflows.find(workflow) is None:
            raise UnknownWorkflow(workflow, None, ", ".join(map(str, self._workflows)))
        handle = await self.client.enqueue(workflow, arguments)
        return await handle.result(timeout)

    async def jump(self, seconds: float) -> None:
        """Set the clock of the store forward, once every run waits or has ended.

        Returns when what has fallen due by then goes on: a jump after it begins from there.
        """
        await self.settle()
        self._clock.offset_s += seconds
        while (await runs.depth(self._connection, Lane("default"))).due:
            await anyio.sleep(0.005)

    async def tick(self) -> None:
        """Fire the schedules that are due, as a scheduler does; needs the extra ``scheduler``."""
        await _load("millstream_scheduler.embedded").fire_due(self._connection, self._observe)

    async def settle(self) -> None:
        """Return once no run is running or about to: each is parked, scheduled or at its end."""
        # Twice in a row: what one run has to say to another may be on its way in between.
        quiet = 0
        while quiet < 2:
            said = await self._connection.client.xlen(Lane("default").outbox)
            depth = await self.client.depth()
            quiet = 0 if said or depth.running or depth.waiting else quiet + 1
            await anyio.sleep(0.0 if quiet else 0.005)

    def crash_after(self, records: int) -> None:
        """Have the worker die as soon as so many more steps are recorded; another takes over."""
        self._countdown = records

    def crash(self) -> None:
        """Have the worker die now; another takes over. One that is dead already dies no more."""
        self._countdown = None
        if self._dying:
            return
        self._dying = True
        self._worker.crash()
        self._dead.set()

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepEnded) and self._countdown is not None:
            self._countdown -= 1
            if self._countdown <= 0:
                self.crash()

    async def _start(self) -> None:
        self._worker = self._embedded.EmbeddedWorker(
            self._url, self._workflows, self._observe, self._tools, self._models, self._seal_keys
        )
        await self._worker.start(self._group)

    async def _replace_the_dead(self) -> None:
        while True:
            await self._dead.wait()
            self._dead = anyio.Event()
            self.crashes += 1
            dead = self._worker
            await dead.bury(self._connection)
            await self._start()
            self._dying = False


def _load(module: str) -> Any:
    # The harness runs the worker's own code, which stands above this room and may not be there.
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extras = "scheduler" if module.startswith("millstream_scheduler") else "worker,memory"
        raise MissingExtra(extras, error.name or module) from error
