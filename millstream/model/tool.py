"""What a tool answered, and what a repeated call of it would do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Effect(StrEnum):
    """What a tool does to the world, as far as repeating a call goes."""

    READ_ONLY = "read-only"  # changes nothing
    IDEMPOTENT = "idempotent"  # twice is the same as once
    KEYED = "keyed"  # the server drops a repetition that carries the same idempotency key
    UNSAFE = "unsafe"  # twice may be twice; what is not declared otherwise

    @property
    def repeatable(self) -> bool:
        """Whether a call that may have run can simply be sent again."""
        return self is not Effect.UNSAFE


class OnUnknown(StrEnum):
    """What to do when an unsafe call may have run and its answer is not known."""

    FAIL = "fail"  # raise `OutcomeUnknown` in the workflow
    RETRY = "retry"  # send it again: an effect may happen twice
    ASK = "ask"  # park the run until an operator says what became of it


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolInfo:
    """What a server says of one of its tools, as a model is told of it."""

    name: str
    description: str = ""
    #: JSON schema of the arguments.
    input_schema: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The answer of a tool. ``is_error`` is an answer too: it is not raised."""

    #: The structured content where the tool gave one; else the text read as JSON; else the text.
    data: Any = None
    #: All text blocks, joined by line ends.
    text: str = ""
    is_error: bool = False
    #: The content blocks as the server sent them.
    content: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, content: list[dict[str, Any]], structured: Any, *, is_error: bool) -> ToolResult:
        """Return the answer that these blocks, and the structured content if any, make up."""
        text = _text(content)
        data = _read(text) if structured is None else structured
        return cls(data=data, text=text, is_error=is_error, content=content)

    def packed(self) -> dict[str, Any]:
        """Return the answer as it is journaled: what follows from the blocks is left out."""
        packed: dict[str, Any] = {"content": self.content, "is_error": self.is_error}
        text = _text(self.content)
        if self.data != _read(text):
            packed["data"] = self.data
        if self.text != text:
            packed["text"] = self.text
        return packed

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> ToolResult:
        """Return the answer that was journaled."""
        plain = cls.of(packed["content"], None, is_error=packed["is_error"])
        return cls(
            data=packed.get("data", plain.data),
            text=packed.get("text", plain.text),
            is_error=plain.is_error,
            content=plain.content,
        )


def _text(content: list[dict[str, Any]]) -> str:
    """Return all text blocks, joined by line ends."""
    texts = [block.get("text", "") for block in content if block.get("type") == "text"]
    return texts[0] if len(texts) == 1 else "\n".join(texts)


#: What a JSON text begins with. Most answers are prose, and failing to read one costs more than
#: reading it would.
_JSON = frozenset('{["-0123456789tfnIN \t\r\n')


def _read(text: str) -> Any:
    if not text or text[0] not in _JSON:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
