"""The built-in workflow ``pipeline``: steps that are data, each recorded like any other.

Steps whose references are there run at the same time. Keys are the ids that the caller gave, so
the timeline of a run reads as it was written. What a pipeline may say: `millstream.model.pipeline`.

Promise: no pipeline takes more of a worker than a journal may hold, whatever it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.errors import InvalidPipeline, StepError, StepFailed
from millstream.model.actions import (
    Action,
    Block,
    ChildAction,
    ChoiceAction,
    InferAction,
    MapAction,
    PipelineStep,
    ToolAction,
    WaitAction,
)
from millstream.model.backoff import RetryPolicy
from millstream.model.expressions import MOST_BYTES, evaluate, holds, size_of
from millstream.model.limits import MIB
from millstream.model.pipeline import MOST_ITEMS, checked_options, read
from millstream.workflow import Context

Scope = Mapping[str, Any]


async def pipeline(
    ctx: Context,
    steps: list[dict[str, Any]],
    input: dict[str, Any] | None = None,
    result: Any = None,
) -> Any:
    """Run steps that are data; return ``result`` of them, or all results by id."""
    return await _Walk(ctx).block(read(steps, result), {"input": input or {}}, "")


class _Walk:
    """One pipeline under way, and what its maps have come to so far."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._items = 0
        self._bytes = 0

    async def block(self, block: Block, outer: Scope, at: str) -> Any:
        """Run a block; ``at`` is the path of ids that leads to it, and makes its keys its own."""
        results: dict[str, Any] = {}
        for generation in block.generations:
            scope = {**outer, **results}
            if len(generation) == 1:
                values = [await self._step(generation[0], scope, at)]
            else:
                steps = (self._step(step, scope, at) for step in generation)
                values = await self._ctx.gather(*steps)
            results.update(zip((step.id for step in generation), values, strict=True))
        return results if block.result is None else evaluate(block.result, {**outer, **results})

    async def _step(self, step: PipelineStep, scope: Scope, at: str) -> Any:
        try:
            return await self._act(step.action, scope, f"{at}{step.id}")
        except StepError as error:
            if not step.tolerated:
                raise
            return {"error": {"cause": error.cause or type(error).__name__, "message": str(error)}}

    async def _act(self, action: Action, scope: Scope, key: str) -> Any:
        match action:
            case ToolAction():
                return await self._tool(key, action, scope)
            case MapAction():
                return await self._map(action, scope, key)
            case WaitAction():
                return await self._wait(action, scope, key)
            case InferAction():
                inputs, options = evaluate([action.inputs, action.options], scope)
                given = checked_options(options)
                return await self._ctx.infer(
                    action.model, inputs, key=key, timeout=action.timeout, **given
                )
            case ChildAction():
                arguments = evaluate(action.arguments, scope)
                return await self._ctx.child(
                    action.workflow, arguments, key=key, queue=action.queue
                )
            case ChoiceAction():
                taken = holds(action.condition, scope)
                chosen, way = (action.then, "then") if taken else (action.otherwise, "else")
                return await self.block(chosen, scope, f"{key}/{way}/")

    async def _wait(self, action: WaitAction, scope: Scope, key: str) -> Any:
        if action.signal is not None:
            return await self._ctx.wait_signal(action.signal, timeout=action.timeout)
        seconds = evaluate(action.seconds, scope)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise StepFailed(
                f"step {key!r}: a wait takes a number of seconds, not {type(seconds).__name__}",
                cause="NotANumber",
            )
        return await self._ctx.sleep(float(seconds))

    async def _tool(self, key: str, action: ToolAction, scope: Scope) -> Any:
        arguments = evaluate(action.arguments, scope)
        if not isinstance(arguments, Mapping):
            raise StepFailed(
                f"step {key!r}: a tool takes an object, not {type(arguments).__name__}",
                cause="NotAnObject",
            )
        retry = None if action.attempts is None else RetryPolicy(max_attempts=action.attempts)
        answer = await self._ctx.tool(
            action.server, action.tool, arguments, key=key, retry=retry, timeout=action.timeout
        )
        if answer.is_error:
            raise StepFailed(
                f"step {key!r}: {action.server}/{action.tool} answered with an error:"
                f" {answer.text}",
                key=key,
                cause="is_error",
            )
        return {"data": answer.data, "text": answer.text}

    async def _map(self, action: MapAction, scope: Scope, key: str) -> list[Any]:
        items = evaluate(action.over, scope)
        if not isinstance(items, list):
            raise StepFailed(f"map takes a list, not {type(items).__name__}", cause="NotAList")
        self._items += len(items)
        if self._items > MOST_ITEMS:
            raise InvalidPipeline([f"{key}: its maps have more than {MOST_ITEMS:,} items"])

        async def one(item: Any) -> Any:
            value = await self.block(action.body, {**scope, action.name: item}, f"{key}/")
            self._bytes += size_of(value)
            if self._bytes > MOST_BYTES:
                raise InvalidPipeline(
                    [f"{key}: its maps come to more than {MOST_BYTES // MIB} MiB"]
                )
            return value

        return await self._ctx.map(one, items, limit=action.limit)
