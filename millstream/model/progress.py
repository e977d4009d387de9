"""What a run tells whoever watches it, while it goes on.

Nothing here is part of the run's truth: that is its journal and its end. What is told may be told
of a try that died; its fence says so, and what was recorded in the end stands.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class EventKind(StrEnum):
    """What an event is about. The words are stored with the events; never rename one."""

    EMIT = "emit"  # what the workflow says of itself
    STEP = "step"  # a step has begun, is tried again, or has ended
    TEXT = "text"  # a piece of what a model writes
    LEFT_OUT = "left_out"  # events that are not kept any more stood here
    END = "end"  # how the run ended


class Saying(NamedTuple):
    """Something to be said, encoded; it is in no journal."""

    kind: EventKind
    data: bytes
