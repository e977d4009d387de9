"""One attempt at a tool call, as a value: what is sent, for whom, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from millstream.model.elicitation import Inputs


class Call(NamedTuple):
    """What is sent, and for whom."""

    tool: str
    arguments: Mapping[str, Any]
    meta: Mapping[str, str]
    run_id: str
    #: On the clock of the event loop.
    deadline: float
    #: What goes back with a call that was answered by a question.
    inputs: Inputs | None = None
