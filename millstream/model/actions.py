"""What a step of a pipeline does, as values. What may be said: `millstream.model.pipeline`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAction:
    """Call a tool of an MCP server."""

    server: str
    tool: str
    arguments: Any
    timeout: float | None
    attempts: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferAction:
    """Ask a model."""

    model: str
    inputs: Any
    options: Any
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitAction:
    """Wait for a time, or for a signal."""

    seconds: Any
    signal: str | None
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildAction:
    """Run another workflow, and wait for its result."""

    workflow: str
    arguments: Any
    queue: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceAction:
    """Go one way or the other."""

    condition: Any
    then: Block
    otherwise: Block


@dataclass(frozen=True, slots=True, kw_only=True)
class MapAction:
    """Do the same for every item of a list, so many at a time."""

    over: Any
    name: str
    limit: int
    body: Block


Action = ToolAction | InferAction | WaitAction | ChildAction | ChoiceAction | MapAction


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineStep:
    """One step, by the id under which later ones find its result."""

    id: str
    action: Action
    #: Whether a failure is its result instead of the pipeline's end.
    tolerated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Steps that share their results. Those of one generation run at the same time."""

    generations: tuple[tuple[PipelineStep, ...], ...] = ()
    #: What the block comes to; None: all results by id.
    result: Any = None
