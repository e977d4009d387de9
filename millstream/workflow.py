"""What an author writes: workflows, and the context through which they act.

A workflow is an async function. It must come to the same steps when it is run again with the same
journal; everything that is not determined by its arguments goes through the context, which
remembers it. `Context` says what is promised; the worker has the implementation, and so has
`millstream.testing` by way of it.
"""

from __future__ import annotations

import inspect
import re
import typing
import uuid as uuids
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, overload

from millstream.errors import UsageError
from millstream.model.backoff import ONCE, RetryPolicy
from millstream.model.tool import ToolInfo, ToolResult

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Log(Protocol):
    """A logger that is silent while a run is replayed."""

    def debug(self, message: str, /, **fields: Any) -> None:
        """Log for whoever looks closely."""

    def info(self, message: str, /, **fields: Any) -> None:
        """Log what happened."""

    def warning(self, message: str, /, **fields: Any) -> None:
        """Log what somebody should look at."""

    def error(self, message: str, /, **fields: Any) -> None:
        """Log what went wrong."""


class Context(ABC):
    """Through this a workflow acts on the world. Every act is journaled under a step key.

    A key is taken when a step is *called*, not when it is awaited. By default it is the branch's
    path, the name, and a count within the branch; give ``key`` where that order is not the same
    every time.
    """

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The id of the run: also a good idempotency key for the world outside."""

    @property
    @abstractmethod
    def attempt(self) -> int:
        """Number of this attempt, from 1. A crash of a worker is not an attempt."""

    @property
    @abstractmethod
    def tenant(self) -> str | None:
        """On whose behalf the run was enqueued."""

    @property
    @abstractmethod
    def log(self) -> Log:
        """A logger bound to the run."""

    @overload
    def step(
        self,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    @overload
    def step(
        self,
        fn: Callable[..., T],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    @abstractmethod
    def step(
        self,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Awaitable[Any]:
        """Call a function once and record what it returned.

        A plain function runs in a thread; after a timeout the thread goes on, unheard. The value
        comes back as JSON would bring it, by the function's return annotation. Raises
        `StepFailed` or `StepTimeout` when the retries are used up.
        """

    @abstractmethod
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
        """Call a tool of an MCP server and record its answer, ``is_error`` included.

        Raises `ToolRejected`, `ToolNotSent`, `ToolInterrupted` or `OutcomeUnknown`.
        """

    @abstractmethod
    def tools(self, server: str, *, key: str | None = None) -> Awaitable[list[ToolInfo]]:
        """Return the tools of an MCP server that may be called, and record them.

        A replay sees what the run saw, whatever the server offers by then. Raises `ToolRejected`
        or `ToolNotSent`.
        """

    @abstractmethod
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
        """Ask a model and record its answers; those of many runs are computed together.

        A list of inputs gives a list of answers, one input (or one conversation: a list of
        messages) gives one. ``priority`` is high, normal or low; an identical input that is under
        way is computed once unless ``dedupe`` is false; ``options`` are the model's own. Raises
        `InferenceRejected`, `ItemTooLarge`, `InferenceFailed`, `InferenceOverloaded`,
        `InferenceUnavailable` or `DeadlineExceeded`.
        """

    @abstractmethod
    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait. A long wait parks the run: no slot, no memory of a worker."""

    @abstractmethod
    def gather(self, *awaitables: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Run branches at the same time; return their values in order.

        All branches run to their end, also when one of them fails; then the first failure, by
        position, is raised. So a replay visits what the run visited.
        """

    @abstractmethod
    def now(self) -> float:
        """Return the time in epoch seconds, the same on every replay."""

    @abstractmethod
    def random(self) -> float:
        """Return a number from 0 to below 1, the same on every replay."""

    @abstractmethod
    def uuid(self) -> uuids.UUID:
        """Return a new UUID, the same on every replay."""

    @abstractmethod
    def emit(self, name: str, data: Any = None) -> None:
        """Tell whoever watches the run about its progress; said once, however often replayed."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a workflow."""

    name: str
    wanted: Any
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """The definition of a workflow."""

    name: str
    version: str
    function: Callable[..., Awaitable[Any]]
    parameters: tuple[Parameter, ...]
    #: Whether it takes any keyword beside its parameters.
    takes_more: bool
    #: Bounds the running time of one attempt in seconds; parked time does not count.
    timeout: float | None = None
    retry: RetryPolicy = ONCE

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(slots=True)
class Workflows:
    """The workflows of one application: what ``millstream worker module:app`` serves."""

    _by_name: dict[str, dict[str, Workflow]] = field(default_factory=dict)

    def workflow(
        self,
        name: str | None = None,
        *,
        version: str = "1",
        timeout: float | None = None,
        retry: RetryPolicy = ONCE,
    ) -> Callable[[Function], Function]:
        """Register an async function whose first parameter is the context.

        Several versions of one name may stand side by side: a new run starts on the one that was
        registered last, a begun one stays on the version it started on.
        """

        def register(function: Function) -> Function:
            label = name or str(getattr(function, "__name__", ""))
            self.add(_define(function, label, version, timeout, retry))
            return function

        return register

    def add(self, workflow: Workflow) -> None:
        """Register a definition."""
        versions = self._by_name.setdefault(workflow.name, {})
        if workflow.version in versions:
            raise UsageError(f"workflow {workflow} is registered twice; give one another version")

        versions[workflow.version] = workflow

    def include(self, other: Workflows) -> None:
        """Add the workflows of another application."""
        for workflow in other:
            self.add(workflow)

    def find(self, name: str, version: str | None = None) -> Workflow | None:
        """Return a definition; without a version the one that was registered last."""
        versions = self._by_name.get(name)
        if not versions:
            return None

        return versions[next(reversed(versions))] if version is None else versions.get(version)

    def __iter__(self) -> Iterator[Workflow]:
        for versions in self._by_name.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(len(versions) for versions in self._by_name.values())


def _define(
    function: Callable[..., Awaitable[Any]],
    name: str,
    version: str,
    timeout: float | None,
    retry: RetryPolicy,
) -> Workflow:
    if not inspect.iscoroutinefunction(function):
        raise UsageError(f"workflow {name!r} must be an async function")
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
        raise UsageError(
            f"workflow name {name!r} and version {version!r} may have letters, digits and . _ -"
        )
    if timeout is not None and timeout <= 0:
        raise UsageError(f"the timeout of workflow {name!r} must be positive, not {timeout}")

    found = list(inspect.signature(function).parameters.values())
    if not found or found[0].kind not in {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }:
        raise UsageError(f"workflow {name!r} must take the context as its first parameter")

    hints = _hints(function, name)
    named = [p for p in found[1:] if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for parameter in named:
        if parameter.kind in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.POSITIONAL_ONLY,
        }:
            raise UsageError(
                f"workflow {name!r} takes its arguments by name; {parameter.name!r} cannot be"
            )

    return Workflow(
        name=name,
        version=version,
        function=function,
        parameters=tuple(
            Parameter(p.name, hints.get(p.name, Any), p.default is inspect.Parameter.empty)
            for p in named
        ),
        takes_more=len(named) < len(found) - 1,
        timeout=timeout,
        retry=retry,
    )


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise UsageError(f"an annotation of workflow {name!r} cannot be read: {error}") from error
