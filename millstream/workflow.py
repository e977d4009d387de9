"""What an author writes: workflows, and the applications they belong to.

A workflow is an async function. It must come to the same steps when it is run again with the same
journal; everything that is not determined by its arguments goes through the context, see
`millstream.context`.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from millstream.calendar import Calendar
from millstream.context import Context, Log
from millstream.errors import UsageError
from millstream.model.backoff import ONCE, RetryPolicy
from millstream.model.limit import MOST_LIMITS, Asked, Limit

__all__ = ["Context", "Log", "Parameter", "Workflow", "Workflows"]

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
    #: How many of its runs go on at a time, or begin in a period.
    limits: tuple[Limit, ...] = ()
    #: Whether whoever watches a run of it is told of its steps, too.
    tells_steps: bool = False

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def asked(self, tenant: str | None, arguments: Mapping[str, Any]) -> list[Asked]:
        """Return what a run of it asks of its limits."""
        return [limit.asked(self.name, tenant, arguments) for limit in self.limits]


@dataclass(slots=True)
class Workflows(Calendar):
    """The workflows of one application: what ``millstream worker module:app`` serves."""

    _by_name: dict[str, dict[str, Workflow]] = field(default_factory=dict)

    def workflow(
        self,
        name: str | None = None,
        *,
        version: str = "1",
        timeout: float | None = None,
        retry: RetryPolicy = ONCE,
        limits: Sequence[Limit] = (),
        events: Literal["emitted", "steps"] = "emitted",
    ) -> Callable[[Function], Function]:
        """Register an async function whose first parameter is the context.

        Several versions of one name may stand side by side: a new run starts on the one that was
        registered last, a begun one stays on the version it started on. With ``events="steps"``
        whoever watches a run is told of each step, too: see `EventKind`.
        """
        bare: Any = name
        if callable(bare):
            # Without parentheses the function arrives as the name, and would never be registered.
            below = getattr(bare, "__name__", "it")
            raise UsageError(f"write @app.workflow() above {below!r}, with its parentheses")
        if events not in {"emitted", "steps"}:
            raise UsageError(f"events of a workflow are 'emitted' or 'steps', not {events!r}")

        def register(function: Function) -> Function:
            label = name or str(getattr(function, "__name__", ""))
            defined = _define(function, label, version, timeout, retry)
            tells = events == "steps"
            self.add(replace(defined, limits=_checked(limits, label), tells_steps=tells))
            return function

        return register

    def add(self, workflow: Workflow) -> None:
        """Register a definition."""
        versions = self._by_name.setdefault(workflow.name, {})
        if workflow.version in versions:
            raise UsageError(f"workflow {workflow} is registered twice; give one another version")

        versions[workflow.version] = workflow

    def include(self, other: Workflows) -> None:
        """Add the workflows and the schedules of another application."""
        for workflow in other:
            self.add(workflow)
        for schedule in other.schedules:
            self.add_schedule(schedule)

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


def _checked(limits: Sequence[Limit], name: str) -> tuple[Limit, ...]:
    if len(limits) > MOST_LIMITS:
        raise UsageError(f"workflow {name!r} has {len(limits)} limits; {MOST_LIMITS} are allowed")
    return tuple(limits)


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
