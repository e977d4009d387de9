"""Templates of a pipeline: values that refer to earlier results, and conditions on them.

Promise: a template is checked before anything runs, and reading it never calls anything: there
is no code in it. A string is never read for references unless it stands under ``$text``, so what a
tool or a person wrote cannot reach for other results. It does not know what a step is.

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

from millstream.errors import InvalidPipeline

_NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
_PATH = re.compile(rf"{_NAME}(\.[^.${{}}\s]+)*")
_HOLE = re.compile(r"\$\{([^}]*)\}")
_MARKS = ("$ref", "$text", "$literal")
_DEEPEST = 64

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


def names_in(template: Any, depth: int = 0) -> Iterator[str]:
    """Yield the names that a template refers to. Raises `InvalidPipeline` where it is malformed."""
    if depth > _DEEPEST:
        raise InvalidPipeline([f"a value is nested deeper than {_DEEPEST} levels"])
    if isinstance(template, Mapping):
        mark = _mark(template)
        if mark == "$ref":
            yield _parts(template["$ref"])[0]
        elif mark == "$text":
            yield from (_parts(path)[0] for path in _holes(template["$text"]))
        elif mark is None:
            for each in template.values():
                yield from names_in(each, depth + 1)
    elif isinstance(template, list | tuple):
        for each in template:
            yield from names_in(each, depth + 1)


def evaluate(template: Any, scope: Mapping[str, Any]) -> Any:
    """Return the value of a template. Raises `InvalidPipeline` for a path that leads nowhere."""
    if isinstance(template, Mapping):
        mark = _mark(template)
        if mark == "$ref":
            return _find(template["$ref"], scope)
        if mark == "$text":
            return _HOLE.sub(lambda hole: _written(_find(hole[1], scope)), template["$text"])
        if mark == "$literal":
            return template["$literal"]
        return {name: evaluate(each, scope) for name, each in template.items()}
    if isinstance(template, list | tuple):
        return [evaluate(each, scope) for each in template]
    return template


def names_in_condition(condition: Any) -> Iterator[str]:
    """Yield the names that a condition refers to. Raises `InvalidPipeline`."""
    name, given = _operation(condition)
    if name in _JOINED:
        if not isinstance(given, list) or not given:
            raise InvalidPipeline([f"{name!r} takes a list of conditions"])
        for each in given:
            yield from names_in_condition(each)
    elif name == "not":
        yield from names_in_condition(given)
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
    return _HOLE.findall(text)


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
