"""The context that a workflow is given: turns its calls into steps of the journal.

Keys are taken when a call is made; the acting happens when what it returned is awaited.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import anyio

from millstream.errors import NeverAwaited, Suspended, UsageError
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.tool import ToolInfo, ToolResult
from millstream.store import codec
from millstream.workflow import Context, Log
from millstream_worker import infersteps, steps, tasks, toolsteps
from millstream_worker.environment import Environment
from millstream_worker.held import Held
from millstream_worker.parking import Parking
from millstream_worker.pins import Pins
from millstream_worker.replayer import Branch, Replay
from millstream_worker.steps import Recorder, Step

T = TypeVar("T")
#: Function steps and tools are tried this often unless the call says otherwise.
DEFAULT_RETRY = RetryPolicy(max_attempts=3, initial=0.5, maximum=30.0)


class Call(Awaitable[T]):
    """Something a workflow has called and not yet awaited. It can be awaited once.

    ``unawaited`` has the keys of such calls, in the order in which they were made.
    """

    def __init__(
        self,
        act: Callable[[], Coroutine[Any, Any, T]],
        key: str = "",
        unawaited: dict[str, None] | None = None,
    ) -> None:
        self._act: Callable[[], Coroutine[Any, Any, T]] | None = act
        self._key = key
        self._unawaited = unawaited
        if unawaited is not None:
            unawaited[key] = None

    def __await__(self) -> Generator[Any, Any, T]:
        if self._act is None:
            raise UsageError("a step was awaited twice; keep its value instead")

        act, self._act = self._act, None
        if self._unawaited is not None:
            self._unawaited.pop(self._key, None)
        return act().__await__()


class RunContext(Context):
    """The context of one attempt of one run."""

    def __init__(
        self,
        held: Held,
        replay: Replay,
        environment: Environment,
        *,
        queue: str,
        wall: Callable[[], float],
        park: Callable[[float], None],
    ) -> None:
        self._held = held
        self._delivery = held.delivery
        self._replay = replay
        self._environment = environment
        self._queue = queue
        self._wall = wall
        self._park = park
        self._log: Log | None = None
        self._unawaited: dict[str, None] = {}

    def check_awaited(self) -> None:
        """Raise `NeverAwaited` when the run ends with calls that nothing came of."""
        if self._unawaited:
            raise NeverAwaited(tuple(self._unawaited))

    @property
    def run_id(self) -> str:
        return self._delivery.run_id

    @property
    def attempt(self) -> int:
        return self._delivery.attempt

    @property
    def tenant(self) -> str | None:
        return self._delivery.tenant

    @property
    def log(self) -> Log:
        if self._log is None:
            self._log = self._environment.make_log(
                self._delivery,
                self._queue,
                lambda: self._replay.replaying,
                lambda: self._replay.branch.path,
            )
        return self._log

    def step(
        self,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[Any]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        if not callable(fn):
            raise UsageError(f"ctx.step takes a function and its arguments, not {fn!r}")

        shape = self._environment.shapes.of(fn)
        step = self._step(StepKind.STEP, shape.name, codec.digest([args, kwargs]), shape.name, key)
        call = functools.partial(fn, *args, **kwargs)
        if not shape.awaited:
            call = functools.partial(self._in_thread, call)

        async def act() -> Any:
            record = self._visit(step)
            if record is not None:
                return steps.replayed(step, record, shape.returned)
            with self._parking.acting:
                return await steps.call_function(
                    self._recorder, step, call, wanted=shape.returned,
                    retry=retry or DEFAULT_RETRY, timeout_s=timeout,
                )  # fmt: skip

        return Call(act, step.key, self._unawaited)

    def tool(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Awaitable[ToolResult]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        sent = dict(arguments or {})
        target = f"{server}/{tool}"
        step = self._step(StepKind.TOOL, target, codec.digest(sent), target, key)
        call = toolsteps.ToolCall(
            server=server,
            tool=tool,
            arguments=sent,
            retry=retry or DEFAULT_RETRY,
            timeout_s=min(timeout or toolsteps.LONGEST_CALL_S, toolsteps.LONGEST_CALL_S),
            run_id=self.run_id,
            queue=self._queue,
            session=toolsteps.session_of(self._queue, self._delivery),
        )

        async def act() -> ToolResult:
            self._pins.recall(server)
            record = self._visit(step)
            with self._parking.acting:
                return await toolsteps.call_tool(self._recorder, step, call, record, self._pins)

        return Call(act, step.key, self._unawaited)

    def tools(self, server: str, *, key: str | None = None) -> Awaitable[list[ToolInfo]]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        step = self._step(StepKind.TOOLS, server, "", f"tools of {server}", key)
        session = toolsteps.session_of(self._queue, self._delivery)

        async def act() -> list[ToolInfo]:
            self._pins.recall(server)
            record = self._visit(step)
            with self._parking.acting:
                return await toolsteps.list_tools(
                    self._recorder, step, server, session, record, self._pins
                )

        return Call(act, step.key, self._unawaited)

    def infer(
        self,
        model: str,
        inputs: Any,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        priority: str = "normal",
        dedupe: bool = True,
        **options: Any,
    ) -> Awaitable[Any]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        given, single = infersteps.split_inputs(inputs)
        call = infersteps.ModelCall(
            model=model,
            inputs=given,
            single=single,
            options=infersteps.options_of(timeout, priority, dedupe, options),
            retry=retry or DEFAULT_RETRY,
            run=f"{self._queue}/{self.run_id}",
        )
        step = self._step(StepKind.INFER, model, call.digest, model, key)

        async def act() -> Any:
            record = self._visit(step)
            if record is not None:
                return steps.replayed(step, record, Any)
            with self._parking.acting:
                return await infersteps.call_model(self._recorder, step, call)

        return Call(act, step.key, self._unawaited)

    def sleep(self, seconds: float) -> Awaitable[None]:
        if not 0 <= seconds < 10 * 366 * 86400:
            raise UsageError(f"ctx.sleep takes seconds from 0 to ten years, not {seconds!r}")
        if self._held.stopped is not None:
            return Call(self._too_late)

        step = self._step(StepKind.SLEEP, "sleep", codec.digest(seconds), "sleep", None)

        async def act() -> None:
            record = self._visit(step)
            if record is None:
                await self._recorder.ready()
                began = self._recorder.wall()
                record = self._recorder.record(
                    step, RecordStatus.WAITING, began + seconds, began=began, took_s=seconds
                )
                await self._recorder.write(step, record)
            await self._until(record.value)

        return Call(act, step.key, self._unawaited)

    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        if self._held.stopped is not None:
            for each in awaitables:
                if inspect.iscoroutine(each):
                    each.close()
            return Call(self._too_late)
        branches = self._replay.branch.children(len(awaitables))
        # The path of a branch is the key of its gather, and where in it the branch stands.
        key = branches[0].path.rpartition(".")[0] if branches else ""
        unawaited = self._unawaited if branches else None
        return Call(lambda: self._gather(awaitables, branches), key, unawaited)

    def now(self) -> float:
        return typing.cast("float", self._value("now", lambda: round(self._recorder.wall(), 6)))

    def random(self) -> float:
        return typing.cast("float", self._value("random", self._environment.random.random))

    def uuid(self) -> uuids.UUID:
        def draw() -> str:
            return str(uuids.UUID(int=self._environment.random.getrandbits(128), version=4))

        return uuids.UUID(self._value("uuid", draw))

    def emit(self, name: str, data: Any = None) -> None:
        if self._held.stopped is not None:
            raise Suspended
        limit = self._environment.limits.event
        said = codec.encode([name, data], f"event {name!r}", limit)
        step = self._step(StepKind.EMIT, name, codec.digest(data), f"emit {name}", None)
        if self._visit(step) is None:
            record = self._recorder.record(step, RecordStatus.OK, None, began=self._recorder.wall())
            self._recorder.emit_later(step, record, said)

    # -- below ---------------------------------------------------------------------------------
    # Made when first needed: many a run records little, and only few wait or call tools.

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._held, self._environment, self._wall, self._queue)

    @cached_property
    def _pins(self) -> Pins:
        return Pins(self._recorder, self._visit)

    @cached_property
    def _parking(self) -> Parking:
        return Parking(self._park, self._environment.park_after_s, self._wall)

    def _step(self, kind: StepKind, target: str, digest: str, name: str, key: str | None) -> Step:
        return Step(key=self._replay.branch.key(name, key), kind=kind, target=target, digest=digest)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await steps.maybe_await(await self._environment.in_thread(call))

    async def _too_late(self) -> Any:
        # Not at once: a workflow that catches everything and tries again must let others run.
        await asyncio.sleep(0)
        raise Suspended

    def _visit(self, step: Step) -> Record | None:
        return self._replay.visit(step.key, step.kind, step.target, step.digest)

    def _value(self, name: str, draw: Callable[[], Any]) -> Any:
        if self._held.stopped is not None:
            raise Suspended
        step = self._step(StepKind.VALUE, name, "", name, None)
        record = self._visit(step)
        if record is None:
            record = self._recorder.record(
                step, RecordStatus.OK, draw(), began=self._recorder.wall()
            )
            self._recorder.write_later(step, record)
        return record.value

    async def _until(self, due: float) -> None:
        with self._parking.waiting(due):
            # The clock of Redis and the loop's may drift apart meanwhile: look again.
            while (left := due - self._recorder.wall()) > 0:
                await anyio.sleep(min(left, 60.0))

    async def _gather(
        self, awaitables: tuple[Awaitable[Any], ...], branches: list[Branch]
    ) -> list[Any]:
        if not awaitables:
            return []

        values: list[Any] = [None] * len(awaitables)
        failures: dict[int, BaseException] = {}

        async def follow(index: int, ended: Callable[[], None]) -> None:
            with self._replay.inside(branches[index]):
                try:
                    values[index] = await awaitables[index]
                except Suspended:
                    pass  # said once for all branches, below
                except tasks.ERRORS as error:
                    # Raised below, when all have ended. Two of them would end the worker if they
                    # left this task, and a cancellation of its own making would go unheard.
                    failures[index] = tasks.own(error)
            ended()

        with self._parking.split(len(awaitables)) as ended:
            async with anyio.create_task_group() as group:
                for index in range(len(awaitables)):
                    group.start_soon(follow, index, ended)

        if self._held.stopped is not None:
            raise Suspended
        if failures:
            raise failures[min(failures)]
        return values
