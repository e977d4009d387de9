"""A value that was shown without its secrets, and comes back changed: what was not shown is kept.

Promise: a place that was left as it was shown gets back what stands there, and nothing that only
stood for a value becomes one. It does not know what the value is for.
"""

from __future__ import annotations

from typing import Any

from millstream.telemetry.redaction import CUT, HIDDEN, redact


class OnlyAMark(ValueError):
    """What stands for a hidden value was moved or changed, and is no value."""


def restored(typed: Any, before: Any) -> Any:
    """Return what was typed over ``redact(before)``, with what that hides. Raises `OnlyAMark`."""
    return _restored(typed, redact(before), before)


def _restored(typed: Any, shown: Any, before: Any) -> Any:
    if typed == shown:
        return before
    match typed, shown, before:
        case dict(), dict(), dict():
            return _members(typed, shown, before)
        case list(), list(), list() if len(typed) == len(shown) == len(before):
            triples = zip(typed, shown, before, strict=True)
            return [_restored(*each) for each in triples]
    cut = isinstance(shown, str) and CUT in shown and shown != before
    if _marked(typed) or (cut and isinstance(typed, str) and CUT in typed):
        raise OnlyAMark
    return typed


def _members(typed: dict[str, Any], shown: dict[str, Any], before: dict[str, Any]) -> Any:
    # Of very many, some are not shown at all.
    kept = {key: value for key, value in before.items() if key not in shown}
    for key, value in typed.items():
        if key in shown and key in before:
            kept[key] = _restored(value, shown[key], before[key])
        elif key in shown and value == shown[key]:
            continue  # its name was not wholly shown, and is kept as well
        elif _marked({key: value}):
            raise OnlyAMark
        else:
            kept[key] = value
    return kept


def _marked(value: Any) -> bool:
    """Whether a mark of ours stands in it, where only values should."""
    match value:
        case dict():
            return any(_marked(key) or _marked(each) for key, each in value.items())
        case list():
            return any(map(_marked, value))
        case str():
            return HIDDEN in value or value == CUT
        case _:
            return False
