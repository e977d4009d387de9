"""A question to a person, and the answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What somebody answered."""

    approved: bool
    by: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """A question that nobody has answered yet."""

    run_id: str
    queue: str
    workflow: str
    #: The step that asks: by this, or by its token, the question is answered.
    key: str
    question: str
    data: Any
    #: When it was asked, and when it is too late, in epoch seconds.
    asked: float
    due: float | None
    #: What a tool asks, by its names: a message, and the schema of a form or an address. None
    #: where the workflow asks, which wants a yes or a no.
    asks: dict[str, Any] | None = None


def hash_of(token: str) -> str:
    """Return what is stored of a token where questions are listed."""
    return hashlib.sha256(token.encode()).hexdigest()
