"""What a call of a model says beside its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from millstream.model.trace import Place


class Priority(StrEnum):
    """How urgent a call is beside others of its model."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How a call wants to be answered."""

    #: The answer is worth nothing after so many seconds.
    timeout_s: float | None = None
    priority: Priority = Priority.NORMAL
    #: Whether an identical input that is under way is waited for instead of computed again.
    dedupe: bool = True
    #: The same for every attempt and every worker, so that a server can tell a repetition.
    idempotency_key: str = ""
    #: What the backend understands.
    backend: Mapping[str, Any] = field(default_factory=dict)
    #: Where the call stands in a trace.
    place: Place | None = None
    #: Told the text of the answers as it comes, the number of the input first, in the event loop;
    #: by a model that can; no text is told twice.
    on_text: Callable[[int, str], None] | None = field(default=None, compare=False)
