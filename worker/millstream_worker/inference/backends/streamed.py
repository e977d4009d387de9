"""Read an answer that an OpenAI-compatible server sends in pieces.

Promise: it is the answer that the server would have sent whole, its tool calls included; half a
stream is none. Whoever wants to is told the text on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

#: Told a piece of the text.
OnText = Callable[[str], None]


async def streamed(
    response: aiohttp.ClientResponse, task: str, most: int, on_text: OnText | None = None
) -> dict[str, Any]:
    """Read events until the server says that it is done. Raises `ValueError` for a bad answer."""
    answer = _Answer(task, on_text)
    size = 0
    async for line in response.content:
        size += len(line)
        if size > most:
            raise ValueError(f"it is longer than {most:,} bytes")
        data = line.strip().removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or not data:
            continue
        if data == b"[DONE]":
            return answer.whole()
        event = json.loads(data)
        if "error" in event:
            raise ValueError(f"the server said: {event['error']}")
        answer.add(event)
    # The connection ended without that word: half an answer is none.
    raise aiohttp.ClientPayloadError("the stream ended before the answer did")


class _Answer:
    """What has come so far."""

    def __init__(self, task: str, on_text: OnText | None) -> None:
        self._task = task
        self._on_text = on_text
        self._texts: list[str] = []
        self._reason: str | None = None
        self._usage: Any = None
        #: The tool calls that it makes, by their place.
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices", []):
            delta = choice.get("delta", {}) if self._task == "chat" else {}
            piece = (delta.get("content") if self._task == "chat" else choice.get("text")) or ""
            self._texts.append(piece)
            if piece and self._on_text is not None:
                self._on_text(piece)
            for part in delta.get("tool_calls") or ():
                self._add_call(part)
            self._reason = choice.get("finish_reason") or self._reason

    def whole(self) -> dict[str, Any]:
        answer = {
            "text": "".join(self._texts),
            "finish_reason": self._reason,
            "usage": self._usage,
        }
        if self._calls:
            answer["tool_calls"] = [self._calls[place] for place in sorted(self._calls)]
        return answer

    def _add_call(self, part: Mapping[str, Any]) -> None:
        # Some servers number no calls: each comes whole then, and has an id.
        last = len(self._calls) - 1
        place = int(part.get("index", last + 1 if part.get("id") else max(0, last)))
        call = self._calls.setdefault(
            place, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        for name in ("name", "arguments"):
            call["function"][name] += function.get(name) or ""
