"""The built-in workflow ``pipeline``: steps that are data, each recorded like any other.

Steps whose references are there run at the same time. Keys are the ids that the caller gave, so
the timeline of a run reads as it was written. What a pipeline may say: `millstream.model.pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.errors import StepError, StepFailed
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
from millstream.model.expressions import evaluate, holds
from millstream.model.pipeline import read
from millstream.workflow import Context

Scope = Mapping[str, Any]


async def pipeline(
    ctx: Context,
    steps: list[dict[str, Any]],
    input: dict[str, Any] | None = None,
    result: Any = None,
) -> Any:
    """Run steps that are data; return ``result`` of them, or all results by id."""
    return await _block(ctx, read(steps, result), {"input": input or {}}, "")


async def _block(ctx: Context, block: Block, outer: Scope, at: str) -> Any:
    """Run a block; ``at`` is the path of ids that leads to it, and makes its keys its own."""
    results: dict[str, Any] = {}
    for generation in block.generations:
        scope = {**outer, **results}
        if len(generation) == 1:
            values = [await _step(ctx, generation[0], scope, at)]
        else:
            values = await ctx.gather(*(_step(ctx, step, scope, at) for step in generation))
        results.update(zip((step.id for step in generation), values, strict=True))
    return results if block.result is None else evaluate(block.result, {**outer, **results})


async def _step(ctx: Context, step: PipelineStep, scope: Scope, at: str) -> Any:
    try:
        return await _act(ctx, step.action, scope, f"{at}{step.id}")
    except StepError as error:
        if not step.tolerated:
            raise
        return {"error": {"cause": error.cause or type(error).__name__, "message": str(error)}}


async def _act(ctx: Context, action: Action, scope: Scope, key: str) -> Any:
    match action:
        case ToolAction():
            return await _tool(ctx, key, action, scope)
        case MapAction():
            return await _map(ctx, action, scope, f"{key}/")
        case WaitAction():
            return await _wait(ctx, action, scope)
        case InferAction():
            inputs, options = evaluate([action.inputs, action.options], scope)
            return await ctx.infer(action.model, inputs, key=key, timeout=action.timeout, **options)
        case ChildAction():
            arguments = evaluate(action.arguments, scope)
            return await ctx.child(action.workflow, arguments, key=key, queue=action.queue)
        case ChoiceAction():
            taken = holds(action.condition, scope)
            chosen, way = (action.then, "then") if taken else (action.otherwise, "else")
            return await _block(ctx, chosen, scope, f"{key}/{way}/")


async def _wait(ctx: Context, action: WaitAction, scope: Scope) -> Any:
    if action.signal is None:
        return await ctx.sleep(float(evaluate(action.seconds, scope)))
    return await ctx.wait_signal(action.signal, timeout=action.timeout)


async def _tool(ctx: Context, key: str, action: ToolAction, scope: Scope) -> Any:
    retry = None if action.attempts is None else RetryPolicy(max_attempts=action.attempts)
    answer = await ctx.tool(
        action.server,
        action.tool,
        evaluate(action.arguments, scope),
        key=key,
        retry=retry,
        timeout=action.timeout,
    )
    if answer.is_error:
        raise StepFailed(
            f"step {key!r}: {action.server}/{action.tool} answered with an error: {answer.text}",
            key=key,
            cause="is_error",
        )
    return {"data": answer.data, "text": answer.text}


async def _map(ctx: Context, action: MapAction, scope: Scope, at: str) -> list[Any]:
    items = evaluate(action.over, scope)
    if not isinstance(items, list):
        raise StepFailed(f"map takes a list, not {type(items).__name__}", cause="NotAList")

    async def one(item: Any) -> Any:
        return await _block(ctx, action.body, {**scope, action.name: item}, at)

    return await ctx.map(one, items, limit=action.limit)
