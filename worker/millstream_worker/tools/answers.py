"""From the SDK's answer to a tool call to the value that a workflow sees.

Promise: what the tool said is kept, error or not. It raises only where a tool asks for something
that a worker cannot give.
"""

from __future__ import annotations

from mcp_types import CallToolResult, InputRequiredResult

from millstream.model.tool import ToolResult
from millstream_worker.tools.faults import Unfit


def tool_result(answer: CallToolResult | InputRequiredResult) -> ToolResult:
    """Return what a tool answered, or raise `Unfit` when it asks instead of answering."""
    if isinstance(answer, InputRequiredResult):
        wanted = ", ".join(sorted(answer.input_requests or {})) or "input"
        raise Unfit(f"the tool asks a person for {wanted}, which a worker cannot answer")

    content = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in answer.content
    ]
    return ToolResult.of(content, answer.structured_content, is_error=answer.is_error)
