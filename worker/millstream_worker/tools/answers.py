"""From the answer to a tool call to the value that a workflow sees, or to what it asks.

Promise: what the tool said is kept, error or not. What is not plainly an answer in text is held
against the SDK's models of the server's era. It raises only where an answer is none, or asks for
something that nobody can give it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
)
from mcp_types.methods import validate_server_result
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from millstream.model.elicitation import Ask, InputNeeded, Inputs
from millstream.model.tool import ToolResult
from millstream_worker.tools.faults import Malformed, Unfit
from millstream_worker.tools.listing import first_of

METHOD = "tools/call"

#: What a session is taken for that has not said what it speaks; the same as in the SDK.
_UNSAID = "2025-11-25"
#: What an answer may hold before 2026: the models know later members too, and would heed them.
_EARLIER = frozenset({"content", "structuredContent", "isError", "_meta"})
_TEXT = {"type", "text"}
_Answer = CallToolResult | InputRequiredResult
_ANSWER: TypeAdapter[_Answer] = TypeAdapter(_Answer)


def tool_result(answer: Mapping[str, Any], version: str | None) -> ToolResult | InputNeeded:
    """Return what a tool answered, or what it asks a person for.

    Raises `Malformed` for what is no answer, `Unfit` where it asks for anything else.
    """
    if _is_plain(answer):
        return ToolResult.of(
            answer["content"],
            answer.get("structuredContent"),
            is_error=answer.get("isError", False),
        )

    found = _checked(answer, version or _UNSAID)
    if isinstance(found, InputRequiredResult):
        asks = {name: _ask(name, each) for name, each in (found.input_requests or {}).items()}
        return InputNeeded(asks=asks, state=found.request_state)

    content = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in found.content
    ]
    return ToolResult.of(content, found.structured_content, is_error=found.is_error)


def sent_again(inputs: Inputs) -> dict[str, Any]:
    """Return what the parameters of a call have beside, once its questions were answered."""
    parts: dict[str, Any] = {}
    for name, each in inputs.responses.items():
        answer = ElicitResult.model_validate(each)
        said = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
        parts.setdefault("inputResponses", {})[name] = said
    if inputs.state is not None:
        parts["requestState"] = inputs.state
    return parts


def _ask(name: str, request: InputRequest) -> Ask:
    if not isinstance(request, ElicitRequest):
        raise Unfit(f"the tool asks for {name} by {request.method}, which a worker does not offer")
    asked = request.params
    if isinstance(asked, ElicitRequestFormParams):
        return Ask(message=asked.message, schema=asked.requested_schema)
    return Ask(message=asked.message, url=asked.url)


def _is_plain(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is complete and in text alone: valid in every era, and the usual one."""
    content = answer.get("content")
    if (
        type(content) is not list
        or answer.get("resultType", "complete") != "complete"
        or type(answer.get("isError", False)) is not bool
        or type(answer.get("structuredContent", {})) is not dict
        or type(answer.get("_meta", {})) is not dict
    ):
        return False
    for block in content:
        if type(block) is not dict or block.keys() != _TEXT:
            return False
        if block["type"] != "text" or type(block["text"]) is not str:
            return False
    return True


def _checked(answer: Mapping[str, Any], version: str) -> _Answer:
    """Return an answer as the SDK's models read it."""
    try:
        with suppress(KeyError):  # of a version that the models do not know
            validate_server_result(METHOD, version, answer)
        if version not in MODERN_PROTOCOL_VERSIONS:
            answer = {name: answer[name] for name in answer if name in _EARLIER}
        return _ANSWER.validate_python(answer, by_name=False)
    except ValidationError as error:
        raise Malformed(f"its answer is invalid ({first_of(error)})") from error
