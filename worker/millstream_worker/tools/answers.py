"""From the SDK's answer to a tool call to the value that a workflow sees, or to what it asks.

Promise: what the tool said is kept, error or not. It raises only where a tool asks for something
that nobody can give it here.
"""

from __future__ import annotations

from typing import Any

from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
)

from millstream.model.elicitation import Ask, InputNeeded, Inputs
from millstream.model.tool import ToolResult
from millstream_worker.tools.faults import Unfit


def tool_result(answer: CallToolResult | InputRequiredResult) -> ToolResult | InputNeeded:
    """Return what a tool answered, or what it asks a person for; raise `Unfit` for all else."""
    if isinstance(answer, InputRequiredResult):
        asks = {name: _ask(name, each) for name, each in (answer.input_requests or {}).items()}
        return InputNeeded(asks=asks, state=answer.request_state)

    content = [
        block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in answer.content
    ]
    return ToolResult.of(content, answer.structured_content, is_error=answer.is_error)


def sent_again(inputs: Inputs) -> dict[str, Any]:
    """Return what the parameters of a call have beside, once its questions were answered."""
    responses = {name: ElicitResult.model_validate(each) for name, each in inputs.responses.items()}
    return {"input_responses": responses or None, "request_state": inputs.state}


def _ask(name: str, request: InputRequest) -> Ask:
    if not isinstance(request, ElicitRequest):
        raise Unfit(f"the tool asks for {name} by {request.method}, which a worker does not offer")
    asked = request.params
    if isinstance(asked, ElicitRequestFormParams):
        return Ask(message=asked.message, schema=asked.requested_schema)
    return Ask(message=asked.message, url=asked.url)
