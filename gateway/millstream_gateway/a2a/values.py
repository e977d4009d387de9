"""JSON values as the protocol's messages hold them, and back.

The protocol has one kind of number, the double. What was a whole number comes back as one; whole
numbers beyond 2**53 lose digits on the way, as the protocol's own documentation warns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from a2a.types.a2a_pb2 import Message, Part, Role
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

_EXACT = 2**53


def plain(value: Value) -> Any:
    """Return a value as Python has it."""
    match value.WhichOneof("kind"):
        case "struct_value":
            return plain_struct(value.struct_value)
        case "list_value":
            return [plain(each) for each in value.list_value.values]
        case "number_value":
            number = value.number_value
            whole = number.is_integer() and abs(number) <= _EXACT
            return int(number) if whole else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def plain_struct(struct: Struct) -> dict[str, Any]:
    """Return an object as Python has it."""
    return {name: plain(value) for name, value in struct.fields.items()}


def part_of(value: Any) -> Part:
    """Return a JSON value as a part: a text as text, anything else as data."""
    if isinstance(value, str):
        return Part(text=value, media_type="text/plain")
    return Part(data=ParseDict(value, Value()), media_type="application/json")


def struct_of(value: Mapping[str, Any]) -> Struct:
    """Return an object as the protocol has it."""
    return ParseDict(dict(value), Struct())


def said_by_agent(message_id: str, task_id: str, context_id: str, *values: Any) -> Message:
    """Return a message of ours about a task."""
    return Message(
        message_id=message_id,
        task_id=task_id,
        context_id=context_id,
        role=Role.ROLE_AGENT,
        parts=[part_of(value) for value in values],
    )
