"""A form as somebody filled it in: its fields as values, and what is wrong with each of them.

A field is read by the type that the API has for it, each by itself: so all that is wrong is told at
once, beside the field, and what was typed is shown again. It does not know what a form is for.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import UnionType
from typing import Any

import msgspec

from millstream.errors import InvalidSchedule, MillstreamError, PayloadTooLarge, QueueFull, said
from millstream_gateway.dashboard.visitors import FIELD
from millstream_gateway.problems import answer_of
from millstream_gateway.refusals import Conflict, Malformed, TooMany

#: Under this name stands what is wrong with the form as a whole.
WHOLE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What was typed, what it says, and what is wrong with it."""

    typed: Mapping[str, str]
    values: Mapping[str, Any]
    #: By field.
    faults: Mapping[str, str]
    #: What the page is answered with.
    status: int = 200

    def shown(self, field: str) -> str:
        """Return what stands in a field."""
        return self.typed.get(field, "")

    def as_(self, wanted: type[Any]) -> Any:
        """Return it as the type that it was read as."""
        return msgspec.convert(self.values, wanted)

    def refused(self, error: MillstreamError, taken: str) -> Filled:
        """Return it with why it was refused, in the field ``taken`` for what somebody else has.

        Raises the error where whoever fills the form in can do nothing about it.
        """
        match error:
            case InvalidSchedule():
                field, text = error.field or WHOLE, error.reason
            case PayloadTooLarge():
                field, text = "arguments", said(error)
            case Conflict():
                field, text = taken, said(error)
            case TooMany() | QueueFull():
                field, text = WHOLE, said(error)
            case _:
                raise error
        return replace(self, faults={**self.faults, field: text}, status=answer_of(error).status)

    def faulty(self, field: str, text: str, status: int = 400) -> Filled:
        """Return it with something that is wrong."""
        return replace(self, faults={**self.faults, field: text}, status=status)


def empty(**typed: str) -> Filled:
    """Return a form that nobody has filled in yet, but for what stands there from the start."""
    return Filled(typed=typed, values={}, faults={})


def read(
    form: Mapping[str, Sequence[str]], wanted: type[msgspec.Struct], also: Collection[str] = ()
) -> Filled:
    """Return a form that was sent. ``also``: fields that are no part of the type.

    Raises `Malformed` for one that no page of ours can have sent.
    """
    typed = {name: found[0].strip() for name, found in form.items() if name != FIELD}
    fields = {field.name: field for field in msgspec.structs.fields(wanted)}
    strange = typed.keys() - fields.keys() - set(also)
    if strange or any(len(found) > 1 for found in form.values()):
        raise Malformed("the form is not one of ours; load its page again")

    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, field in fields.items():
        text = typed.get(name, "")
        if not text:
            if field.required:
                faults[name] = "This is needed."
            continue
        try:
            values[name] = _value(text, field.type)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            faults[name] = _in_words(str(error))
    return Filled(typed=typed, values=values, faults=faults, status=400 if faults else 200)


def _value(text: str, wanted: Any) -> Any:
    kinds = _kinds(wanted)
    if dict in kinds:
        return msgspec.json.decode(text, type=wanted)
    if datetime in kinds and re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text):
        text += ":00"
    value = msgspec.convert(text, wanted, strict=False)
    if isinstance(value, float) and not math.isfinite(value):
        # JSON cannot say it either.
        raise ValueError("Expected `float`, got `str`")
    return value


def _kinds(wanted: Any) -> set[Any]:
    """Return the plain types that a field's type is made of."""
    origin = typing.get_origin(wanted)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(wanted)[0])
    if origin in {typing.Union, UnionType}:
        return {kind for each in typing.get_args(wanted) for kind in _kinds(each)}
    return {origin or wanted}


#: What msgspec says, and how people say it.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        r"Expected `str` matching regex.*",
        "Letters, digits and - . _ alone, no sign first.",
    ),
    (r"Expected `str` of length <= (\d+).*", r"At most \1 characters."),
    (r"Expected `(?:int|float)(?: \| null)?`, got .*", "This is a number."),
    (r"Expected `(?:int|float)` ([<>]=?) (\S+?)(?:\.0)?", r"This is a number \1 \2."),
    (r"Invalid RFC3339.*|Expected `datetime.*", "A time is written like 2026-12-24T18:00."),
    (r"JSON is malformed: (.*)|(Input data was truncated)", r"This is no JSON: \1\2."),
    (r"Expected `object`, got .*", "This is a JSON object: {…}."),
    (r"Invalid enum value .*", "This is none of the choices."),
)


def _in_words(error: str) -> str:
    for said_so, words in _WORDS:
        found = re.fullmatch(said_so, error)
        if found:
            return found.expand(words)
    return error
