"""Reads server-sent events as a browser does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream."""

    id: str
    kind: str
    data: Any


async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[Message]:
    """Yield the messages of an answer until it ends; what was cut in the middle is none."""
    fields: dict[str, str] = {}
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "data" in fields:
            yield Message(
                fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
            )
        fields = {}
