"""The journal of a run: what it has done, one record a step, keyed by a stable step key.

A record holds what was called (kind, target, a hash of the arguments) and what came of it. A
key is a path, never a position, so that branches that run at the same time cannot disturb each
other's keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class StepKind(StrEnum):
    """What a step does. The words are stored in journals; never rename one."""

    STEP = "step"  # a function
    TOOL = "tool"  # an MCP tool call
    TOOLS = "tools"  # the tools that an MCP server offers
    INFER = "infer"  # a call of a model
    AGENT = "agent"  # a task of another agent
    SLEEP = "sleep"
    SIGNAL = "signal"  # a message from outside
    APPROVAL = "approval"  # a question to a person
    CHILD = "child"  # another run, and its end
    VALUE = "value"  # now, random, uuid
    EMIT = "emit"


class RecordStatus(StrEnum):
    """What came of a step. The words are stored in journals; never rename one."""

    INTENT = "intent"  # about to have an effect that must not be repeated blindly
    WAITING = "waiting"  # for a time, or for something from outside
    RESOLVED = "resolved"  # nobody knew what became of it, and an operator said
    ANSWERED = "answered"  # a tool asked for something before it goes on, and somebody answered
    ENDED = "ended"  # a child run ended; the value says how
    OK = "ok"
    FAILED = "failed"


class Spilled(NamedTuple):
    """Stands for a value that is too large for a journal, and is kept beside it."""

    #: Under which its parts are found.
    name: str
    #: Bytes, and in how many parts.
    size: int
    parts: int
    #: Hash of the bytes.
    digest: str


class Record(NamedTuple):
    """One line of a journal. A tuple, since a busy worker makes tens of thousands a second."""

    kind: StepKind
    #: The function's name, ``server/tool``, or the name of the value.
    target: str
    #: Hash of the encoded arguments.
    digest: str
    status: RecordStatus
    #: The step's value when OK, or a `Spilled`; ``[class, cause, message]`` when failed; when a
    #: wait ends.
    value: Any = None
    #: How often the step was tried.
    attempts: int = 1
    #: When the step began, in epoch seconds, and how long it took.
    began: float = 0.0
    took_s: float = 0.0
    #: The attempt of the run that wrote it, and the process.
    run_attempt: int = 1
    by: str = ""
    #: What it was called with, for people: an excerpt without its secrets. Never replayed.
    inputs: Any = None
    #: Whether what is secret in it stands sealed in the store.
    sealed: bool = False

    @property
    def fingerprint(self) -> str:
        """What must be the same when the step is called again."""
        return f"{self.kind} {self.target}({self.digest})"
