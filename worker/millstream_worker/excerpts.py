"""What a step was called with, as its record keeps it for people: short, and without its secrets.

Promise: an excerpt costs no more than its own size, however large the value is, it has at most so
many bytes as JSON, and what looks like a secret is not in it: neither whole nor cut in two. It is
never replayed, so nothing rests on what is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from millstream.telemetry.redaction import CUT, redact

#: What looks for secrets sees so much more than is kept of a text: a secret that reaches beyond
#: the end could not be told from plain text, so the end is left out.
_BEYOND = 1400
#: What a number, a truth or a bracket counts for.
_NODE = 8
_DEEPEST = 6


def excerpt(value: Any, most: int) -> Any:
    """Return an excerpt of a value, as plain JSON of at most ``most`` bytes and a mark."""
    shown = redact(_Cutting(most).cut(value, 0))
    data = msgspec.json.encode(shown)
    return shown if len(data) <= most else f"{data[:most].decode('utf-8', 'ignore')}{CUT}"


class _Cutting:
    """Takes from a value until there is enough."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def cut(self, value: Any, depth: int) -> Any:
        """Return the beginning of a value."""
        self._left -= _NODE
        match value:
            case str():
                return self._text(value)
            case bool() | int() | float() | None:
                return value
            case Mapping() | list() | tuple() if depth >= _DEEPEST:
                return CUT
            case Mapping():
                return self._mapping(value, depth)
            case list() | tuple():
                return self._list(value, depth)
            case _:
                return self._object(value, depth)

    def _text(self, value: str) -> str:
        if len(value) <= self._most:
            self._left -= len(value)
            return value
        self._left -= self._most
        # Redacted here and once more with the rest: what is cut off is seen by the search only.
        kept: str = redact(value[: self._most + _BEYOND])
        return f"{kept[: max(0, min(self._most, len(kept) - _BEYOND))]}{CUT}"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, each in value.items():
            if self._left <= 0:
                found[CUT] = f"{len(value) - len(found)} more"
                break
            key = str(name)[: self._most]
            self._left -= len(key)
            found[key] = self.cut(each, depth + 1)
        return found

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        found: list[Any] = []
        for each in value:
            if self._left <= 0:
                found.append(f"{CUT} {len(value) - len(found)} more")
                break
            found.append(self.cut(each, depth + 1))
        return found

    def _object(self, value: Any, depth: int) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value)]
        elif isinstance(value, msgspec.Struct):
            names = list(value.__struct_fields__)
        else:
            return f"<{type(value).__name__}>"
        return self._mapping({name: getattr(value, name) for name in names}, depth)
