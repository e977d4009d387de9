"""Templates of a pipeline: values that refer to earlier results, and conditions on them.

Promise: a template is checked before anything runs, and reading it never calls anything: there
is no code in it. What a template comes to is bounded, however often it refers to the same: a few
lines could otherwise stand for more than a worker has memory. A string is never read for
references unless it stands under ``$text``, so what a tool or a person wrote cannot reach for other
results. It does not know what a step is.

    {"$ref": "page.data.links.0"}            a value, with its type
    {"$text": "Summarise: ${page.text}"}     a string with values in it
    {"$literal": {"$ref": "as it stands"}}   what is not to be read
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from millstream.errors import InvalidPipeline
from millstream.model.limits import LIMITS, MIB

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_PATH = re.compile(rf"{_NAME}(\.[^.${{}}\s]+)*")
_MARKS = ("$ref", "$text", "$literal")
_DEEPEST = 64
#: What one template may come to, as JSON: as much as a journal holds.
MOST_BYTES = LIMITS.journal_bytes

_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "equals": operator.eq,
    "not_equals": operator.ne,
    "less": operator.lt,
    "at_most": operator.le,
    "greater": operator.gt,
    "at_least": operator.ge,
    "in": lambda item, many: item in many,
}
_JOINED = {"all": all, "any": any}


def names_in(template: Any) -> set[str]:
    """Return the names that a template refers to. Raises `InvalidPipeline` for a malformed one."""
    found: set[str] = set()
    _collect(template, found, 0)
    return found


def evaluate(template: Any, scope: Mapping[str, Any]) -> Any:
    """Return the value of a template, which may share parts with it.

    Raises `InvalidPipeline` for a path that leads nowhere, and for what is too large.
    """
    return _Reading(scope).value(template)


def size_of(value: Any) -> int:
    """Return how long a value is as JSON, or nearly."""
    if isinstance(value, str):
        return len(value)
    if value is None or isinstance(value, int | float):
        return 8
    return len(msgspec.json.encode(value, enc_hook=repr))


def names_in_condition(condition: Any, depth: int = 0) -> Iterator[str]:
    """Yield the names that a condition refers to. Raises `InvalidPipeline`."""
    if depth > _DEEPEST:
        raise InvalidPipeline([f"a condition is nested deeper than {_DEEPEST} levels"])
    name, given = _operation(condition)
    if name in _JOINED:
        if not isinstance(given, list) or not given:
            raise InvalidPipeline([f"{name!r} takes a list of conditions"])
        for each in given:
            yield from names_in_condition(each, depth + 1)
    elif name == "not":
        yield from names_in_condition(given, depth + 1)
    elif name in _COMPARED:
        if not isinstance(given, list) or len(given) != 2:
            raise InvalidPipeline([f"{name!r} takes a list of two values"])
        yield from names_in(given)
    else:
        yield from names_in(given)


def holds(condition: Any, scope: Mapping[str, Any]) -> bool:
    """Return whether a condition holds. Raises `InvalidPipeline` for what cannot be compared."""
    name, given = _operation(condition)
    if name in _JOINED:
        return _JOINED[name](holds(each, scope) for each in given)
    if name == "not":
        return not holds(given, scope)
    if name == "exists":
        return _exists(given, scope)
    if name in _COMPARED:
        left, right = evaluate(given, scope)
        try:
            return bool(_COMPARED[name](left, right))
        except TypeError as error:
            raise InvalidPipeline([f"{name!r} cannot compare its values: {error}"]) from None
    return bool(evaluate(given, scope))


def _collect(template: Any, found: set[str], depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidPipeline([f"a value is nested deeper than {_DEEPEST} levels"])
    if isinstance(template, Mapping):
        mark = _mark(template)
        if mark == "$ref":
            found.add(_parts(template["$ref"])[0])
        elif mark == "$text":
            found.update(_parts(path)[0] for path in _holes(template["$text"]))
        elif mark is None:
            for each in template.values():
                _collect(each, found, depth + 1)
    elif isinstance(template, list | tuple):
        for each in template:
            _collect(each, found, depth + 1)


class _Reading:
    """One template on its way to its value: what it has referred to, and how much that is."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope
        self._left = MOST_BYTES
        #: By path: many lines may refer to the same.
        self._sizes: dict[Any, int] = {}

    def value(self, template: Any) -> Any:
        if isinstance(template, Mapping):
            mark = _mark(template)
            if mark == "$ref":
                return self._referred(template["$ref"])
            if mark == "$text":
                return self._text(template["$text"])
            if mark == "$literal":
                return template["$literal"]
            values = {name: self.value(each) for name, each in template.items()}
            same = all(values[name] is each for name, each in template.items())
            return template if same else values
        if isinstance(template, list | tuple):
            found = [self.value(each) for each in template]
            # What says nothing of its own is shared: a map may come by here thousands of times.
            same = all(map(operator.is_, found, template))
            return template if same and isinstance(template, list) else found
        return template

    def _referred(self, path: Any) -> Any:
        found = _find(path, self._scope)
        known = path if isinstance(path, str) else tuple(map(str, path))
        if known not in self._sizes:
            self._sizes[known] = size_of(found)
        self._take(self._sizes[known])
        return found

    def _text(self, text: str) -> str:
        pieces = []
        for piece, hole in _pieces(text):
            pieces.append(piece)
            if hole is not None:
                pieces.append(_written(_find(hole, self._scope)))
                self._take(len(pieces[-1]))
        return "".join(pieces)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise InvalidPipeline([f"a value comes to more than {MOST_BYTES // MIB} MiB"])


def _operation(condition: Any) -> tuple[str, Any]:
    """Return the operator of a condition and what it is given; no name for a plain value."""
    if isinstance(condition, Mapping) and _mark(condition) is None:
        known = {*_COMPARED, *_JOINED, "not", "exists"}
        if len(condition) != 1 or next(iter(condition)) not in known:
            raise InvalidPipeline(
                [f"a condition is a reference or has one of {', '.join(sorted(known))}"]
            )
        return next(iter(condition.items()))
    return "", condition


def _exists(template: Any, scope: Mapping[str, Any]) -> bool:
    try:
        return evaluate(template, scope) is not None
    except InvalidPipeline:
        return False


def _mark(template: Mapping[str, Any]) -> str | None:
    marks = [name for name in template if isinstance(name, str) and name.startswith("$")]
    if not marks:
        return None
    if len(template) != 1 or marks[0] not in _MARKS:
        raise InvalidPipeline([f"{marks[0]!r} must stand alone, and be one of {', '.join(_MARKS)}"])
    return marks[0]


def _holes(text: Any) -> list[str]:
    if not isinstance(text, str):
        raise InvalidPipeline(["'$text' takes a string"])
    return [hole for _, hole in _pieces(text) if hole is not None]


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield what stands before each hole, and the path in it; at last the rest, and None."""
    begin = 0
    while (opened := text.find("${", begin)) >= 0 and (closed := text.find("}", opened)) >= 0:
        yield text[begin:opened], text[opened + 2 : closed]
        begin = closed + 1
    yield text[begin:], None


def _parts(path: Any) -> list[str]:
    """Return the parts of a path: a string with dots, or a list where a name has a dot in it."""
    if isinstance(path, str) and _PATH.fullmatch(path):
        return path.split(".")
    if isinstance(path, list) and path and all(isinstance(each, str | int) for each in path):
        return [str(each) for each in path]
    raise InvalidPipeline([f"{path!r} is no reference; write it as name.field.0"])


def _find(path: Any, scope: Mapping[str, Any]) -> Any:
    name, *rest = _parts(path)
    if name not in scope:
        raise InvalidPipeline([f"there is no result {name!r}"])
    found: Any = scope[name]
    walked = name
    for part in rest:
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise InvalidPipeline([f"{walked!r} has no {part!r}"]) from None
        walked = f"{walked}.{part}"
    return found


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
