"""One tool call over a session, without the models that the SDK builds for a message.

The SDK's session says how a call is stamped in the era of its server: the version, who we are,
the headers that mirror arguments. What is sent besides is plain, and so is what comes back.

Promise: one message, inside the deadline of the call. It does not know what may be repeated.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.shared.dispatcher import CallOptions

from millstream.model.elicitation import InputNeeded
from millstream.model.tool import ToolResult
from millstream_worker.tools.answers import METHOD, sent_again, tool_result
from millstream_worker.tools.call import Call
from millstream_worker.tools.faults import Unsent
from millstream_worker.tools.session import Session


async def send_call(session: Session, call: Call) -> ToolResult | InputNeeded:
    """Send a call, and return what the tool answered, or asks. Raises a `Fault`."""
    left_s = call.deadline - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise Unsent("its time was over before it could be sent")
    params: dict[str, Any] = {
        "name": call.tool,
        "arguments": {**call.arguments},
        "_meta": {**call.meta},
    }
    if call.inputs is not None:
        params |= sent_again(call.inputs)
    request: dict[str, Any] = {"method": METHOD, "params": params}
    options: CallOptions = {"timeout": left_s}
    # The SDK has no public way to it but through a model of the request, twice validated.
    session.client._stamp(request, options)  # noqa: SLF001
    answer = await session.line.send_raw_request(METHOD, request["params"], options)
    return tool_result(answer, session.client.protocol_version)
