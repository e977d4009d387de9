"""A worker inside another program: for tests, which start it, crash it and start it again.

It keeps every promise of a worker process but one: it does not outlive the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup

from millstream.builtin import with_builtin
from millstream.errors import (
    InferenceError,
    InferenceFailed,
    InferenceRejected,
    ToolRejected,
    said,
)
from millstream.events import Emit
from millstream.model.inference import CallOptions
from millstream.model.run import Delivery
from millstream.model.tool import Effect, OnUnknown, ToolInfo, ToolResult
from millstream.store import deliveries, leases
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream.store.sealing import sealer_of
from millstream.workflow import Log, Workflows
from millstream_worker import compose
from millstream_worker.agents.asked import Agents, NoAgents
from millstream_worker.config import WorkerConfig
from millstream_worker.environment import Inference, Tools
from millstream_worker.functionsteps import maybe_await
from millstream_worker.serve import Worker

__all__ = ["EmbeddedWorker", "FunctionModels", "FunctionTools", "SilentLog"]


class SilentLog:
    """A logger that says nothing."""

    def debug(self, message: str, /, **fields: Any) -> None:
        """Say nothing."""

    info = warning = error = debug


class FunctionTools:
    """Tools that are functions of the test: ``{"server": {"tool": function}}``."""

    def __init__(self, functions: Mapping[str, Mapping[str, Any]]) -> None:
        self._functions = functions

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> _PreparedFunction:
        """Find the function. Raises `ToolRejected`."""
        del arguments, run_id
        function = self._functions.get(server, {}).get(tool)
        if function is None:
            raise ToolRejected(f"the test has no tool {server}/{tool}", cause="ToolRejected")

        return _PreparedFunction(function)

    async def call(
        self, prepared: _PreparedFunction, arguments: Mapping[str, Any], **options: Any
    ) -> ToolResult:
        """Call the function; a `ToolResult` is taken as it is, anything else becomes its data."""
        del options
        value = await maybe_await(prepared.function(**arguments))
        return value if isinstance(value, ToolResult) else ToolResult(data=value, text=str(value))

    async def offered(self, server: str, *, run_id: str) -> tuple[Sequence[ToolInfo], str]:
        """Describe the functions by their docstrings; their arguments are not described."""
        del run_id
        functions = self._functions.get(server)
        if functions is None:
            raise ToolRejected(f"the test has no server {server}", cause="ToolRejected")
        described = [
            ToolInfo(name=name, description=inspect.getdoc(function) or "")
            for name, function in functions.items()
        ]
        return described, ""

    def release_run(self, run_id: str) -> None:
        """There is nothing to release."""


class _PreparedFunction:
    effect = Effect.UNSAFE
    needs_intent = True
    on_unknown = OnUnknown.FAIL
    catalogue = ""
    room = None

    def __init__(self, function: Any) -> None:
        self.function = function


class FunctionModels:
    """Models that are functions of the test, each of one input: ``{"embedder": function}``.

    One that is an async generator of text streams it.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = functions

    def attend(self, held: Callable[[], int]) -> None:
        """Nobody waits for others here."""

    async def infer(
        self, model: str, inputs: Sequence[Any], options: CallOptions, *, run: str
    ) -> list[Any]:
        """Call the function for each input. What it raises fails the call."""
        del run
        function = self._functions.get(model)
        if function is None:
            raise InferenceRejected(f"the test has no model {model}", cause="UnknownModel")
        try:
            return [
                await _answer(function(each, **options.backend), number, options)
                for number, each in enumerate(inputs)
            ]
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceFailed(
                f"{type(error).__name__}: {said(error)}", cause=type(error).__name__
            ) from error


async def _answer(value: Any, number: int, options: CallOptions) -> Any:
    """Return an answer; a model that yields text says it in these pieces."""
    if not inspect.isasyncgen(value):
        return await maybe_await(value)

    pieces: list[str] = []
    async for piece in value:
        pieces.append(str(piece))
        if options.on_text is not None:
            options.on_text(number, pieces[-1])
    return "".join(pieces)


class EmbeddedWorker:
    """One worker of a group, on a connection of its own."""

    def __init__(  # noqa: PLR0917 - what a worker is made of
        self,
        url: str,
        workflows: Workflows,
        emit: Emit,
        tools: Tools,
        inference: Inference,
        seal_keys: str | None = None,
        *,
        agents: Agents | None = None,
    ) -> None:
        self._agents = agents or NoAgents()
        self._connection = Connection(url, sealer=sealer_of(seal_keys))
        #: All that it can run.
        self.workflows = with_builtin(workflows)
        self._emit = emit
        self._tools = tools
        self._inference = inference
        self._scope = anyio.CancelScope()
        self._worker: Worker | None = None

    async def start(self, group: TaskGroup) -> None:
        """Start to serve the default queue; returns when it takes work."""
        # Any sleep parks: then a jump in time wakes it, instead of a wait.
        config = WorkerConfig(lease=0.5, park_after=0.0, grace=5.0)

        def make_log(
            delivery: Delivery,
            queue: str,
            replaying: Callable[[], bool],
            branch: Callable[[], str],
        ) -> Log:
            del delivery, queue, replaying, branch
            return SilentLog()

        parts = compose.Parts(
            connection=self._connection,
            emit=self._emit,
            make_log=make_log,
            tools=self._tools,
            inference=self._inference,
            agents=self._agents,
        )
        worker = await compose.compose(config, self.workflows, parts)
        self._worker = worker

        duties = anyio.CancelScope()

        async def withdraw() -> None:
            with duties:
                await compose.withdrawer(parts).withdraw_forever(config.queue)

        async def serve() -> None:
            try:
                with self._scope:
                    await worker.serve()
            finally:
                duties.cancel()
                worker.stop_renewing()

        group.start_soon(withdraw)
        group.start_soon(serve)
        await worker.started.wait()

    def crash(self) -> None:
        """Die at once: nothing is written any more, nothing given back."""
        if self._worker is not None:
            self._worker.abandon()
        self._scope.cancel()

    async def bury(self, connection: Connection) -> None:
        """Let the lease of the dead run out at once, instead of waiting for it."""
        assert self._worker is not None
        lane = Lane("default")
        await leases.resign(connection, lane, self._worker.token)
        await leases.reclaim_at_once(connection, lane)
        await deliveries.end_reads(connection, lane)
        with anyio.move_on_after(1, shield=True):
            await self._connection.aclose()
