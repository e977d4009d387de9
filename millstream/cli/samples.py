"""An example of what a workflow takes, made from its annotations: for a line that can be pasted.

Promise: an example that is returned fits, since it went the way that arguments go. There is none
where a type says less than its values must be.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from millstream.store import codec
from millstream.workflow import Parameter, Workflow

_DEEPEST = 5
_PLAIN: Mapping[type[inspect.Type], Any] = {
    inspect.IntType: 1,
    inspect.FloatType: 1.5,
    inspect.BoolType: True,
    inspect.NoneType: None,
    inspect.DictType: {},
}


class _NoExample(Exception):
    pass


def flags_for(workflow: Workflow) -> str | None:
    """Return ``--arg`` flags for the arguments that a workflow requires; None: no idea."""
    words = []
    for parameter in workflow.parameters:
        if parameter.required:
            example = _example(parameter)
            if example is None:
                return None
            words.append(f"--arg {shlex.quote(f'{parameter.name}={example}')}")

    return " ".join(words)


def _example(parameter: Parameter) -> str | None:
    """Return a value as it is written behind ``--arg NAME=``."""
    try:
        value = _value(inspect.type_info(parameter.wanted), parameter.name, _DEEPEST)
        codec.convert(value, parameter.wanted)
    except (_NoExample, msgspec.ValidationError, ValueError, TypeError, NotImplementedError):
        return None

    # A text stands as it is, unless it would read as something else.
    return value if isinstance(value, str) and not _is_json(value) else json.dumps(value)


def _value(kind: inspect.Type, name: str, depth: int) -> Any:
    if depth == 0:
        raise _NoExample
    match kind:
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType():
            return [_value(kind.item_type, name, depth - 1)]
        case inspect.VarTupleType():
            return [_value(kind.item_type, name, depth - 1)]
        case inspect.TupleType():
            return [_value(item, name, depth - 1) for item in kind.item_types]
        case inspect.UnionType():
            return _value(kind.types[0], name, depth - 1)
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return {
                field.encode_name: _value(field.type, field.name, depth - 1)
                for field in kind.fields
                if field.required
            }
        case _:
            return _plain(kind, name)


def _plain(kind: inspect.Type, name: str) -> Any:
    match kind:
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.EnumType():
            return next(iter(kind.cls)).value
        case inspect.StrType() | inspect.AnyType():
            return name
    for known, value in _PLAIN.items():
        if isinstance(kind, known):
            least = getattr(kind, "ge", None)
            return value if least is None else least

    raise _NoExample


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
