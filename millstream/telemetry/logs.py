"""Logs: one subscriber to events, and the logger that workflow authors get as ``ctx.log``.

Promises: one line an event, named in the past tense, with its facts as fields; no secret in any
line; logging never raises into the code that logs, and a replay says nothing twice. It keeps no
global state: `make_logger` builds a logger, ``compose`` hands it on. It does not know where the
lines go, nor what a worker is.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from copy import copy
from operator import attrgetter
from typing import Any, Literal, Protocol, Self, TextIO, get_args

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from millstream.errors import ConfigError
from millstream.events import Emit, Event, StoreFailed, StoreRecovered
from millstream.model.trace import trace_id_of
from millstream.telemetry.lines import Clock, Lines
from millstream.telemetry.redaction import is_clear, redact_fields
from millstream.telemetry.repeats import Repeats
from millstream.telemetry.severities import above, severity

LogFormat = Literal["json", "console"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


def make_logger(
    *,
    log_format: LogFormat,
    level: str,
    stream: TextIO | None = None,
    wall: Callable[[], float] = time.time,
) -> EventLogger:
    """Return a logger that writes lines of JSON, or lines for people, to ``stream`` (stderr)."""
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level!r} is unknown; use one of {', '.join(LEVELS)}")
    if log_format not in ("json", "console"):
        raise ConfigError(f"log format {log_format!r} is unknown; use json or console")

    stream = sys.stderr if stream is None else stream
    as_json = log_format == "json"
    wrapped = structlog.wrap_logger(
        Lines(stream),
        processors=[
            structlog.processors.format_exc_info,
            _JsonLine(wall, _as_json) if as_json else _Finished(wall, _for_people(stream)),
        ],
        wrapper_class=_telling(structlog.make_filtering_bound_logger(LEVELS[level.lower()])),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    # `bind` resolves the lazy proxy: from here on no global configuration is looked at.
    logger: EventLogger = wrapped.bind()
    return logger


class EventLogger(FilteringBoundLogger, Protocol):
    """A logger that also writes entries of ours, which need nothing of what authors may say."""

    def tell(self, level: int, name: str, fields: Mapping[str, Any]) -> None:
        """Write an event with its facts, whatever the level."""


def _telling(bound: type[Any]) -> type[Any]:
    """Return the loggers of structlog with a short way for events: a line is written for each run.

    They have no arguments to be put into a text and no exception, and nothing is bound to them.
    """

    class Telling(bound):  # type: ignore[misc]
        def tell(self, level: int, name: str, fields: Mapping[str, Any]) -> None:
            method = _METHODS[level]
            line = self._processors[-1].of_event(self._logger, method, name, fields)
            getattr(self._logger, method)(line)

    return Telling


_METHODS = {level: name for name, level in LEVELS.items()}

# -- events ------------------------------------------------------------------------------------


class LogSubscriber:
    """Writes each event as one line, but an outage of Redis as few. Usable as an `Emit`."""

    def __init__(self, logger: EventLogger, *, mono: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._repeats = Repeats(mono)
        # Asked once: most events of a busy worker are not written.
        enabled = [level for level in LEVELS.values() if logger.is_enabled_for(level)]
        self._least = min(enabled)

    def hears(self, kind: type[Event]) -> Emit | None:
        """Return what writes the events of a kind; None when they are never loud enough."""
        # The end of an outage is noted, whether it is written or not.
        return self if kind is StoreRecovered else above(kind, self._least, self)

    def __call__(self, event: Event) -> None:
        """Write the event, unless its level is filtered out."""
        if type(event) is StoreRecovered:
            self._repeats.over(event)
        level = severity(event)
        if level < self._least:
            return
        if type(event) is StoreFailed:
            self._refused(level, event)
        else:
            self._logger.tell(level, _NAMES[type(event)], event_fields(event))

    def _refused(self, level: int, event: StoreFailed) -> None:
        left_out = self._repeats.left_out(event)
        if left_out is not None:
            more = {"left_out": left_out} if left_out else {}
            self._logger.tell(level, _NAMES[StoreFailed], event_fields(event) | more)


def event_name(kind: type) -> str:
    """Return the name of an event in logs: ``RunSettled`` is ``run_settled``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def event_fields(event: Event) -> dict[str, Any]:
    """Return the facts of an event as log fields; what is None is left out."""
    names, values_of = _FIELDS[type(event)]
    pairs = zip(names, values_of(event), strict=False)
    fields = {name: value for name, value in pairs if value is not None}
    if "trace" in fields:
        # The id alone: that is what a line and a trace are found by.
        fields["trace"] = trace_id_of(fields["trace"]) or fields["trace"]
    return fields


_NAMES: dict[type, str] = {kind: event_name(kind) for kind in get_args(Event)}
#: Log fields, and what reads their values in one call: a line is written for every run. The token
#: names a process and is no secret: `worker` says so.
_FIELDS: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]] = {
    kind: (
        tuple("worker" if x == "token" else x for x in kind.__struct_fields__),
        # With one twice, it returns a tuple also where there is only one.
        attrgetter(*kind.__struct_fields__, kind.__struct_fields__[0]),
    )
    for kind in get_args(Event)
}


# -- for workflow authors ----------------------------------------------------------------------


#: Names of ours, and of structlog's own parameters: an author's field yields and gets a ``_``.
_TAKEN = frozenset(
    {"timestamp", "level", "event", "exception", "self", "method_name"}
    | {"run_id", "workflow", "queue", "attempt", "tenant", "trace", "branch", "step"}
)


class RunLogger:
    """``ctx.log``: knows its run, and keeps silent while the run replays its journal."""

    __slots__ = ("_branch", "_fields", "_logger", "_replaying", "_step")

    def __init__(
        self,
        logger: FilteringBoundLogger,
        *,
        run_id: str,
        workflow: str,
        queue: str,
        attempt: int,
        replaying: Callable[[], bool],
        tenant: str | None = None,
        trace: str | None = None,
        branch: Callable[[], str] = lambda: "",
        step: Callable[[], str] = lambda: "",
    ) -> None:
        named = {"tenant": tenant, "trace": trace}
        known = {name: value for name, value in named.items() if value is not None}
        self._logger: FilteringBoundLogger = logger.bind(
            run_id=run_id, workflow=workflow, queue=queue, attempt=attempt, **known
        )
        self._fields: dict[str, Any] = {}
        self._replaying = replaying
        self._branch = branch
        self._step = step

    def bind(self, **fields: Any) -> Self:
        """Return a logger of the same run that adds these fields to every line."""
        other = copy(self)
        other._fields = {**self._fields, **_yielding(fields)}
        return other

    def debug(self, message: str, /, **fields: Any) -> None:
        """Say what only helps to find a fault."""
        self._say(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        """Say what happened."""
        self._say(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: Any) -> None:
        """Say what went wrong without ending the run."""
        self._say(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: Any) -> None:
        """Say what failed."""
        self._say(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: Any) -> None:
        """Say what failed, with the traceback of the exception being handled."""
        self._say(logging.ERROR, message, {"exc_info": True, **fields})

    def _say(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if self._replaying() or not self._logger.is_enabled_for(level):
            return

        places = {"branch": self._branch(), "step": self._step()}
        where = {name: place for name, place in places.items() if place}
        self._logger.log(level, str(message), **where, **{**self._fields, **_yielding(fields)})


def _yielding(fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}_" if name in _TAKEN else name: value for name, value in fields.items()}


# -- from fields to a line ---------------------------------------------------------------------


class _Finished:
    """Makes a line of an entry: stamped, without secrets, and always a line."""

    def __init__(self, wall: Callable[[], float], render: Processor) -> None:
        self._clock = Clock(wall)
        self._render = render

    def __call__(self, logger: WrappedLogger, method: str, entry: EventDict) -> str:
        """Finish what somebody said: the last processor of structlog."""
        event = redact_fields({"event": entry.pop("event")})["event"]
        return self._searched(logger, method, event, entry)

    def of_event(
        self, logger: WrappedLogger, method: str, event: Any, fields: Mapping[str, Any]
    ) -> str:
        """Finish an entry whose name holds no secret."""
        return self._searched(logger, method, event, fields)

    def _searched(
        self, logger: WrappedLogger, method: str, event: Any, fields: Mapping[str, Any]
    ) -> str:
        entry = {"timestamp": self._clock(), "level": method, "event": event}
        try:
            return str(self._render(logger, method, entry | redact_fields(fields)))
        except Exception as error:  # noqa: BLE001 - a strange field must not end the run
            return json.dumps({**entry, "unrenderable": type(error).__name__})


class _JsonLine(_Finished):
    """The same in JSON. Most events are names and numbers: that is seen once they are encoded."""

    def of_event(
        self, logger: WrappedLogger, method: str, event: Any, fields: Mapping[str, Any]
    ) -> str:
        """Finish an entry whose name holds no secret."""
        try:
            encoded = _encoder.encode(fields)
        except Exception:  # noqa: BLE001 - a strange field: what is said of it instead is said below
            encoded = b""
        if not fields or not is_clear(fields, encoded):
            return self._searched(logger, method, event, fields)
        head = f'{{"timestamp":"{self._clock()}","level":"{method}","event":"{event}",'
        return head + encoded[1:].decode()


_encoder = msgspec.json.Encoder()


def _as_json(_logger: WrappedLogger, _method: str, entry: EventDict) -> str:
    try:
        return _encoder.encode(entry).decode()
    except UnicodeEncodeError:
        return json.dumps(entry)  # it says half a character, and can be told all the same


def _for_people(stream: TextIO) -> Processor:
    render = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        sort_keys=False,
        # The pretty formatters print local variables, and with them secrets.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def for_people(logger: WrappedLogger, method: str, entry: EventDict) -> str:
        return str(render(logger, method, {k: _printable(k, v) for k, v in entry.items()}))

    return for_people


def _printable(key: str, value: Any) -> Any:
    # A control character in a value must neither steer the terminal nor forge a line.
    if not isinstance(value, str) or value.isprintable():
        return value
    kept = "\n" if key == "exception" else ""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in value)
