"""Which workflow a message is for, and what arguments it brings.

A skill is a workflow. A message names it in its metadata (``skill``); one that names none is for
the only one there is, or for the one that the configuration says. Its data parts are arguments by
name. Its text is the argument that the data does not give: ``message``, or the only text that the
workflow takes. A workflow whose ``message`` is an object gets the whole message there. Files are
for workflows with a list ``files``, and for signals; others refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2a.types.a2a_pb2 import Message, SendMessageRequest
from a2a.utils.errors import ContentTypeNotSupportedError, InvalidParamsError
from google.protobuf.json_format import MessageToDict

from millstream.builtin import AGENT, PIPELINE
from millstream_gateway.a2a.files import FILES, KINDS, file_of
from millstream_gateway.a2a.values import plain, plain_struct
from millstream_gateway.offered import Offered

#: In the metadata of a message, or of its request.
SKILL = "skill"
INPUT_MODES = ("text/plain", "application/json")
#: Of a skill that takes files.
ANY_TYPE = "*/*"
_WHOLE = "message"
_TEXT = "text/"
_JSON = ("application/json", "+json")


@dataclass(frozen=True, slots=True)
class Content:
    """What a message says: its text, and what it gives by name."""

    text: str
    data: Mapping[str, Any]
    #: The value of its one data part where that is no object; None where there is none.
    value: Any = None
    files: Sequence[Mapping[str, Any]] = ()


def content_of(message: Message) -> Content:
    """Return what a message says.

    Raises `ContentTypeNotSupportedError` or `InvalidParamsError`.
    """
    files: list[Mapping[str, Any]] = []
    texts: list[str] = []
    data: dict[str, Any] = {}
    value: Any = None
    for part in message.parts:
        kind = part.WhichOneof("content")
        if kind in KINDS:
            files.append(file_of(part))
            continue
        _check_type(kind, part.media_type)
        if kind == "text":
            texts.append(part.text)
        elif kind == "data":
            found = plain(part.data)
            if isinstance(found, dict):
                data.update(found)
            else:
                value = found
    return Content("\n".join(texts), data, value, files)


def _check_type(kind: str | None, media_type: str) -> None:
    bare = media_type.partition(";")[0].strip().lower()
    as_text = kind == "text" and (bare == "" or bare.startswith(_TEXT) or bare.endswith(_JSON))
    as_data = kind == "data" and (bare == "" or bare.endswith(_JSON))
    if not as_text and not as_data:
        raise ContentTypeNotSupportedError(
            f"a part is {media_type or kind or 'empty'}; what is taken: {', '.join(INPUT_MODES)},"
            " as parts with text or data, and files where a workflow takes them"
        )


def wanted_skill(
    request: SendMessageRequest, skills: Sequence[Offered], default: str | None
) -> Offered:
    """Return the workflow that a message is for. Raises `InvalidParamsError`."""
    named = plain_struct(request.message.metadata).get(SKILL)
    if named is None:
        named = plain_struct(request.metadata).get(SKILL, default)
    if named is None:
        # What is built in every worker has is there to be asked for by name.
        own = [each for each in skills if each.described.name not in {PIPELINE, AGENT}]
        if len(own) == 1:
            return own[0]
    found = next((each for each in skills if each.name == named), None)
    if found is None:
        names = ", ".join(each.name for each in skills) or "none"
        what = "names no skill" if named is None else f"is for {named!r}, which is not here"
        raise InvalidParamsError(
            f'the message {what}; say "metadata": {{"{SKILL}": NAME}}, one of: {names[:1000]}'
        )
    return found


def arguments_of(message: Message, content: Content, skill: Offered) -> dict[str, Any]:
    """Return the arguments that a message brings.

    Raises `ContentTypeNotSupportedError` or `InvalidParamsError`.
    """
    arguments = dict(content.data)
    properties: Mapping[str, Any] = skill.described.arguments.get("properties", {})
    if content.files:
        if not takes_files(skill):
            raise ContentTypeNotSupportedError(
                f"skill {skill.name!r} takes no files: its workflow has no list {FILES!r}"
            )
        if FILES in arguments:
            raise InvalidParamsError(
                f"{FILES!r} stands in the data, and there are parts with files"
            )
        arguments[FILES] = list(content.files)
    if _takes_whole(properties) and _WHOLE not in arguments:
        return {**arguments, _WHOLE: MessageToDict(_without_files(message))}
    if content.text:
        arguments[_text_argument(skill, properties, arguments)] = content.text
    return arguments


def _without_files(message: Message) -> Message:
    """Return the message as the workflow gets it whole: its files stand beside it."""
    left = Message()
    left.CopyFrom(message)
    del left.parts[:]
    left.parts.extend(part for part in message.parts if part.WhichOneof("content") not in KINDS)
    return left


def takes_files(skill: Offered) -> bool:
    """Whether a workflow takes files: it has a list of that name."""
    properties: Mapping[str, Any] = skill.described.arguments.get("properties", {})
    return _kind(properties.get(FILES)) == "array"


def _takes_whole(properties: Mapping[str, Any]) -> bool:
    return _kind(properties.get(_WHOLE)) == "object"


def _text_argument(skill: Offered, properties: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    texts = [name for name, schema in properties.items() if _kind(schema) == "string"]
    open_ = [name for name in texts if name not in given]
    required = [name for name in open_ if name in skill.described.arguments.get("required", ())]
    for choice in ([name for name in open_ if name == _WHOLE], required, open_):
        if len(choice) == 1:
            return choice[0]
    raise InvalidParamsError(
        f"skill {skill.name!r} has no one argument that the text could be; send a part with data,"
        f" by the names of its arguments: {', '.join(properties) or 'none'}"
    )


def _kind(schema: Any) -> str | None:
    """Return the type of an argument that has one; that it may be null does not count."""
    if not isinstance(schema, Mapping):
        return None
    kinds = [schema.get("type")]
    kinds += [each.get("type") for each in schema.get("anyOf", ()) if isinstance(each, Mapping)]
    flat: list[str] = []
    for kind in kinds:
        flat += kind if isinstance(kind, list) else [kind] if kind else []
    found = {kind for kind in flat if kind != "null"}
    return found.pop() if len(found) == 1 else None
