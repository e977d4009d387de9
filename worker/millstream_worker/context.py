"""The context that a workflow is given: turns its calls into steps of the journal.

Keys are taken when a call is made; the acting happens when what it returned is awaited.
"""

from __future__ import annotations

import functools
import inspect
import typing
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import cached_property
from typing import Any

from millstream.errors import Suspended, UsageError
from millstream.model.agent import AgentReply
from millstream.model.backoff import RetryPolicy
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream.model.tool import ToolInfo, ToolResult
from millstream.store import codec
from millstream.workflow import Log
from millstream_worker import (
    agentsteps,
    branches,
    functionsteps,
    infersteps,
    liststeps,
    patches,
    steps,
    toolsteps,
)
from millstream_worker.agents import replies
from millstream_worker.calls import Call
from millstream_worker.streaming import Text
from millstream_worker.waiting import Waiting

#: Function steps and tools are tried this often unless the call says otherwise.
DEFAULT_RETRY = RetryPolicy(max_attempts=3, initial=0.5, maximum=30.0)


class RunContext(Waiting):
    """The context of one attempt of one run."""

    @cached_property
    def log(self) -> Log:
        return self._environment.make_log(
            self._delivery,
            self._queue,
            lambda: self._replay.replaying,
            lambda: self._replay.branch.path,
        )

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

        def act() -> Coroutine[Any, Any, Any]:
            record = self._visit(step)
            if record is not None:
                return self._replayed(step, record, shape.returned)
            return functionsteps.call_function(
                self._recorder, step, call, acting=self._parking.acting, wanted=shape.returned,
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
        step = self._step(StepKind.TOOL, target, codec.digest(sent), target, key, sent)
        call = toolsteps.ToolCall(
            server=server,
            tool=tool,
            arguments=sent,
            retry=retry or DEFAULT_RETRY,
            timeout_s=min(timeout or toolsteps.LONGEST_CALL_S, toolsteps.LONGEST_CALL_S),
            run_id=self.run_id,
            queue=self._queue,
            generation=self._delivery.generation,
            session=self._session(),
        )

        async def act() -> ToolResult:
            self._pins.recall(server)
            record = self._visit(step)
            with self._parking.acting:
                return await toolsteps.call_tool(self._recorder, step, call, record, self._asking)

        return Call(act, step.key, self._unawaited)

    def tools(self, server: str, *, key: str | None = None) -> Awaitable[list[ToolInfo]]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        step = self._step(StepKind.TOOLS, server, "", f"tools of {server}", key)
        asked = liststeps.Listing(server=server, session=self._session())

        async def act() -> list[ToolInfo]:
            self._pins.recall(server)
            record = self._visit(step)
            with self._parking.acting:
                return await liststeps.list_tools(self._recorder, step, asked, record, self._pins)

        return Call(act, step.key, self._unawaited)

    def agent(
        self,
        agent: str,
        message: Any,
        *,
        skill: str | None = None,
        reply_to: AgentReply | None = None,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
    ) -> Awaitable[AgentReply]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        parts = replies.parts_of(message)
        before = AgentReply(state="", agent=agent) if reply_to is None else reply_to
        digest = codec.digest([parts, skill, before.task, before.context])
        step = self._step(StepKind.AGENT, agent, digest, f"agent {agent}", key)
        call = agentsteps.AgentCall(
            wanted=before.agent,
            parts=parts,
            skill=skill,
            task=before.task,
            context=before.context,
            retry=retry or DEFAULT_RETRY,
            timeout_s=timeout,
            key=toolsteps.key_of(self._queue, self._delivery, step),
            base=self._delivery.base,
        )

        async def act() -> AgentReply:
            record = self._visit(step)
            return await agentsteps.call_agent(self._recorder, self._parking, step, call, record)

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
        stream: bool = False,
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
        step = self._step(StepKind.INFER, model, call.digest, model, key, call.given)

        async def act() -> Any:
            record = self._visit(step)
            if record is not None:
                return steps.replayed(step, await self._recorder.whole(record), Any)
            text = Text(self._held, step) if stream else None
            with self._parking.acting:
                return await infersteps.call_model(self._recorder, step, call, text)

        return Call(act, step.key, self._unawaited)

    def map(
        self, fn: Callable[[Any], Awaitable[Any]], items: Iterable[Any], *, limit: int = 100
    ) -> Awaitable[list[Any]]:
        if self._held.stopped is not None:
            return Call(self._too_late)
        work = branches.Mapping(self._held, self._replay, self._parking, list(items), limit)
        unawaited = self._unawaited if work.items else None
        return Call(lambda: work.map(fn), work.key, unawaited)

    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        if self._held.stopped is not None:
            for each in awaitables:
                if inspect.iscoroutine(each):
                    each.close()
            return Call(self._too_late)
        split = branches.Split(self._held, self._replay, self._parking, len(awaitables))
        unawaited = self._unawaited if awaitables else None
        return Call(lambda: split.gather(awaitables), split.key, unawaited)

    def now(self) -> float:
        return typing.cast("float", self._value("now", lambda: round(self._recorder.wall(), 6)))

    def random(self) -> float:
        return typing.cast("float", self._value("random", self._environment.random.random))

    def uuid(self) -> uuids.UUID:
        def draw() -> str:
            return str(uuids.UUID(int=self._environment.random.getrandbits(128), version=4))

        return uuids.UUID(self._value("uuid", draw))

    def patched(self, name: str) -> bool:
        return patches.patched(name, self._replay, self._recorder)

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
    def _session(self) -> str:
        """Return the name under which servers' sessions are this run's, and have them ended."""
        self._held.uses_tools = True
        return toolsteps.session_of(self._queue, self._delivery)

    async def _replayed(self, step: steps.Step, record: Record, wanted: Any) -> Any:
        return steps.replayed(step, await self._recorder.whole(record), wanted)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await functionsteps.maybe_await(await self._environment.in_thread(call))
