"""An answer that is recognised at a glance is the same as the SDK's models make of it."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import CallToolResult

from millstream.model.tool import ToolResult
from millstream_worker.tools.answers import tool_result
from millstream_worker.tools.faults import Malformed

VERSIONS = ["2025-11-25", "2026-07-28"]
TEXT = {"type": "text", "text": "ok"}
ANSWERS: list[dict[str, Any]] = [
    {"content": [TEXT]},
    {"content": []},
    {"content": [TEXT, {"type": "text", "text": "[1, 2]"}]},
    {"content": [TEXT], "isError": True},
    {"content": [TEXT], "structuredContent": {"a": [1, None]}},
    {"content": [TEXT], "structuredContent": None},
    {"content": [TEXT], "_meta": {"trace": "x"}},
    {"content": [TEXT], "unknown": 7},
    {"content": [TEXT | {"annotations": {"priority": 0.5}}]},
    {"content": [TEXT | {"_meta": {"a": 1}}]},
    {"content": [TEXT | {"annotations": None}]},
    {"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
    {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "b"}}, TEXT]},
]
INVALID: list[dict[str, Any]] = [
    {},
    {"content": "ok"},
    {"content": [{"type": "text"}]},
    {"content": [{"type": "text", "text": 7}]},
    {"content": [{"type": "smell", "text": "ok"}]},
    {"content": [["text", "ok"]]},
    {"content": [TEXT], "isError": "perhaps"},
    {"content": [TEXT], "_meta": 7},
]


def by_models(answer: dict[str, Any]) -> ToolResult:
    """What the SDK's model of the answer says."""
    found = CallToolResult.model_validate(answer, by_name=False)
    content = [
        each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in found.content
    ]
    return ToolResult.of(content, found.structured_content, is_error=found.is_error)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_an_answer_is_what_the_models_say(answer: dict[str, Any], version: str) -> None:
    """The quick way must not show a workflow anything else than the long one."""
    whole = answer | ({"resultType": "complete"} if version == VERSIONS[-1] else {})
    assert tool_result(whole, version) == by_models(answer)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("answer", INVALID, ids=str)
def test_what_is_no_answer_is_refused(answer: dict[str, Any], version: str) -> None:
    """A server's mistake is named, and does not reach the workflow as a value."""
    whole = answer | ({"resultType": "complete"} if version == VERSIONS[-1] else {})
    with pytest.raises(Malformed, match="its answer is invalid"):
        tool_result(whole, version)


def test_members_of_a_later_revision_mean_nothing_in_an_earlier_one() -> None:
    """An older server may use the name for something else."""
    answer = {"content": [TEXT], "resultType": "of its own"}
    assert tool_result(answer, "2025-11-25") == by_models({"content": [TEXT]})
