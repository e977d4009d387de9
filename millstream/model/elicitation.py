"""What a tool asks of a person before it goes on, and the answers that go back with the call.

As MCP has it since 2026-07-28: a call is answered with requests and an opaque state, and is sent
again with the responses and that state. It knows no journal and no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from millstream.errors import UsageError

#: How often one call may ask before it is given up.
MOST_ROUNDS = 10

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing that is asked."""

    message: str
    #: A form's JSON schema: flat properties of plain types.
    schema: dict[str, Any] | None = None
    #: Where a person does it instead, out of everybody's sight.
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputNeeded:
    """What a call came back with instead of an answer."""

    #: By the name that the server gave it; none: only the call is to be sent again.
    asks: dict[str, Ask] = field(default_factory=dict)
    #: Goes back as it came.
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call carries that is sent again."""

    #: How often the call has asked so far.
    round: int
    state: str | None
    #: By the server's name: ``action``, and the ``content`` of a form that was accepted.
    responses: dict[str, dict[str, Any]]

    def packed(self) -> list[Any]:
        """Return it as it is journaled."""
        return [self.round, self.state, self.responses]


def responses_to(
    asks: Mapping[str, Mapping[str, Any]], answer: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return a response to everything that is asked; None declines it all.

    Where one form is asked, ``answer`` is its content; where several things are, it has the
    content of each by its name. Raises `UsageError` when it does not fit what is asked.
    """
    if answer is None:
        return {name: {"action": "decline"} for name in asks}
    contents = dict.fromkeys(asks, answer) if len(asks) == 1 else dict(answer)
    if len(asks) > 1 and contents.keys() - asks.keys():
        raise UsageError(
            f"nobody asked for {_names(contents.keys() - asks.keys())}; the answer has an object"
            f" for each of {_names(asks)}"
        )
    return {name: _accepted(name, ask, contents.get(name)) for name, ask in asks.items()}


def question_of(asks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return all that is asked as one question."""
    return " / ".join(str(ask.get("message", "")) for ask in asks.values())


def _accepted(name: str, ask: Mapping[str, Any], content: Any) -> dict[str, Any]:
    if ask.get("schema") is None:
        if content:
            raise UsageError(f"{name!r} is done at its address; there is nothing to fill in")
        return {"action": "accept"}
    return {"action": "accept", "content": _checked(name, ask["schema"], content or {})}


def _checked(name: str, schema: Mapping[str, Any], content: Any) -> dict[str, Any]:
    """Return the content of a form; that it fits in every detail is the server's to judge."""
    if not isinstance(content, Mapping):
        raise UsageError(f"the answer to {name!r} must be an object, not {content!r}")
    fields: Mapping[str, Any] = schema.get("properties") or {}
    missing = [each for each in schema.get("required") or () if each not in content]
    if missing:
        raise UsageError(f"the answer to {name!r} lacks {_names(missing)}")
    unknown = content.keys() - fields.keys()
    if unknown:
        raise UsageError(f"nobody asked for {_names(unknown)}; the form has {_names(fields)}")
    for key, value in content.items():
        kind = str(fields[key].get("type", ""))
        wanted = _TYPES.get(kind)
        # A truth value is a number in Python, and is none in a form.
        if wanted and (not isinstance(value, wanted) or (type(value) is bool) != (bool in wanted)):
            raise UsageError(f"{key} of {name!r} must be of type {kind}, not {value!r}")
        _check_choice(key, fields[key], value)
    return dict(content)


def _check_choice(key: str, described: Mapping[str, Any], value: Any) -> None:
    known = described.get("enum") or [
        each.get("const") for each in described.get("oneOf") or () if isinstance(each, Mapping)
    ]
    if known and value not in known:
        raise UsageError(f"{key} must be one of {_names(known)}, not {value!r}")


def _names(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
