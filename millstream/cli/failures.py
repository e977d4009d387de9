"""What is told of an error: one line on stderr, and the exit code.

An error of the library tells itself. One that came out of a task group is unpacked first. What is
left is a mistake of ours: it is called one, and says how to see more.
"""

from __future__ import annotations

import sys

import typer

from millstream.cli.exits import Exit, code_of
from millstream.cli.output import clean
from millstream.errors import MillstreamError

#: The base of what typer raises for a line that it cannot read; where it lives depends on the
#: release of typer.
_Misread: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


def tell(error: BaseException) -> int:
    """Write one line about an error and return the exit code."""
    error = _innermost(error)
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return interrupted()
    if isinstance(error, MillstreamError):
        _say(f"error: {error}")
        return code_of(error)
    if isinstance(error, _Misread):
        _say(f"error: {_misread(error)}")
        return Exit.USAGE

    _say(
        f"error: this should not happen: {type(error).__name__}: {error}"
        " (MILLSTREAM_DEBUG=1 shows where; please report it)"
    )
    return Exit.BUG


def interrupted() -> int:
    """Say that somebody stopped the command."""
    _say("interrupted")
    return Exit.INTERRUPTED


def _innermost(error: BaseException) -> BaseException:
    """Return the error that a group of errors is about: one of ours, if there is any."""
    if not isinstance(error, BaseExceptionGroup):
        return error

    inner = [_innermost(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, MillstreamError)), inner[0])


def _misread(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    return f"{message} (see: {context.command_path} --help)" if context is not None else message


def _say(line: str) -> None:
    print(clean(line), file=sys.stderr, flush=True)  # noqa: T201 - this is where it is told
