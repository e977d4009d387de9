"""Flags made from configurations: a setting that exists has a flag, and no flag is without one.

`command` turns a function into a typer command: its own parameters stay, the fields of a
configuration become options, ``--json`` is added, and coroutines are run. What the flags say goes
through `millstream.config.resolve`, with the environment and the file.
"""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import typer

from millstream.cli.output import Output
from millstream.config import DEFAULT_REDIS, OTLP, Setting, check_names, resolve, setting

Function = Callable[..., Any]
T = TypeVar("T")

_SHORT = {"queue": ("-q",)}
_METAVARS: Mapping[Any, str] = {int: "N", float: "SECONDS", Path: "FILE", str: "TEXT"}
_NAMED = {
    "redis": "URL",
    "queue": "NAME",
    "log_level": "LEVEL",
    "host": "ADDRESS",
    "seal_keys": "FILE",
    # Numbers with a fraction that are a second's, not seconds.
    "rate": "N",
    "enqueue_rate": "N",
}
#: For `command`: what is said of the queue where only one can be meant.
ONE_QUEUE = {"queue": "Queue. [default: default]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a command that talks to Redis can be told."""

    redis: str = setting(DEFAULT_REDIS, "address of Redis")
    queue: tuple[str, ...] = setting(("default",), "queue; may be given several times")
    patience: float = setting(
        2.0, "seconds to insist while Redis does not answer", lowest=0, highest=3600
    )
    seal_keys: str | None = setting(
        None, "file with the keys that values are sealed under, or env: and a variable's name"
    )
    actor: str | None = setting(
        None, "who is named in the audit trail; by default the user and the machine"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueConfig(ClientConfig):
    """What a command that enqueues can be told."""

    otlp_endpoint: str | None = setting(
        None, "address of a collector that traces are sent to, by OTLP over HTTP", *OTLP
    )


@dataclass(frozen=True, slots=True)
class Given:
    """What the flags said, for a command that decides itself where the rest comes from."""

    flags: Mapping[str, Any]

    def __post_init__(self) -> None:
        # An option that may be repeated is an empty list when it was not given; an empty text
        # was given, and is refused: it is a variable that the shell did not have.
        known = {name: value for name, value in self.flags.items() if value not in (None, [])}
        object.__setattr__(self, "flags", known)

    def resolved(self, cls: type[T], **overrides: Any) -> T:
        """Fill a configuration; ``overrides`` beat the flags."""
        # A dataclass cannot be told from another class in a signature.
        found: T = resolve(cls, {**self.flags, **overrides}, os.environ, Path.cwd())  # type: ignore[type-var]
        return found


def command(
    cls: type[Any], *, without: Sequence[str] = (), said: Mapping[str, str] | None = None
) -> Callable[[Function], Callable[..., Any]]:
    """Return a decorator that makes a typer command of a function.

    The function gets ``config``, the filled configuration, or ``given``, what only the flags
    say; and ``out``, how it speaks. ``without`` names fields that have no flag here,
    and ``said`` is the help of those that are taken otherwise than their configuration tells.
    """

    def decorate(function: Function) -> Callable[..., Any]:
        settings = [each for each in fields(cls) if each.name not in without]
        option = functools.partial(_option, cls, said or {})
        wanted = inspect.signature(function).parameters

        @functools.wraps(function)
        def run(**values: Any) -> Any:
            flags = {each.name: values.pop(each.name) for each in settings}
            values["out"] = Output(json=values.pop("json"))
            check_names(known_names(), os.environ, Path.cwd())
            given = Given(flags)
            if "given" in wanted:
                values["given"] = given
            else:
                values["config"] = given.resolved(cls)
            if inspect.iscoroutinefunction(function):
                return anyio.run(functools.partial(function, **values))
            return function(**values)

        _sign(run, [*_own(function), *map(option, settings), _json()])
        return run

    return decorate


def known_names() -> set[str]:
    """Return every setting that any process has: they share one file and one environment."""
    from millstream_gateway.config import GatewayConfig
    from millstream_scheduler.config import SchedulerConfig
    from millstream_worker.config import WorkerConfig

    configs = (EnqueueConfig, WorkerConfig, SchedulerConfig, GatewayConfig)
    return {each.name for cls in configs for each in fields(cls)} | {"debug"}


def _own(function: Function) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in parameters
        if each.name not in {"config", "given", "out"}
    ]


def _option(cls: type[Any], said: Mapping[str, str], each: Field[Any]) -> inspect.Parameter:
    hint = typing.get_type_hints(cls)[each.name]
    option = typer.Option(
        f"--{each.name.replace('_', '-')}",
        *_SHORT.get(each.name, ()),
        help=said.get(each.name) or _help(each),
        metavar=_metavar(each.name, hint),
        show_default=False,
    )
    # Everything is a text here: `resolve` converts and checks, wherever a value comes from.
    kind: Any = list[str] | None if typing.get_origin(hint) is tuple else str | None
    if hint is bool:
        # Said or not said: there is nothing to convert.
        kind = bool | None
    return _keyword(each.name, Annotated[kind, option], None)


def _json() -> inspect.Parameter:
    option = typer.Option("--json", help="Write JSON to stdout, and nothing else.")
    return _keyword("json", Annotated[bool, option], False)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _sign(function: Any, parameters: Sequence[inspect.Parameter]) -> None:
    # Typer reads both: the signature, and the annotations again on its own.
    function.__signature__ = inspect.Signature(parameters)
    function.__annotations__ = {each.name: each.annotation for each in parameters}
    del function.__wrapped__


def _help(each: Field[Any]) -> str:
    said: Setting | None = each.metadata.get("setting")
    text = said.help[0].upper() + said.help[1:] if said else each.name
    default = ", ".join(each.default) if isinstance(each.default, tuple) else each.default
    return f"{text}." if default in (None, "") else f"{text}. [default: {default}]"


def _metavar(name: str, hint: Any) -> str:
    if name in _NAMED:
        return _NAMED[name]

    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] or [hint]
    if typing.get_origin(kinds[0]) is typing.Literal:
        return "|".join(typing.get_args(kinds[0]))

    return _METAVARS.get(kinds[0], "TEXT")
