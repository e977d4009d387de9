"""Coalescing: callers share calls, and none of them has to wait for another one's end."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from millstream.client.coalescing import Coalescer

pytestmark = pytest.mark.anyio


async def test_a_caller_that_asks_in_a_row_lets_others_through() -> None:
    """Each of its questions may leave at once, but not before one that waits already."""
    sent: list[str] = []

    async def send(items: Sequence[str]) -> Sequence[str]:
        await anyio.lowlevel.checkpoint()
        sent.extend(items)
        return items

    questions = Coalescer(send, 10)

    async def ask_in_a_row() -> None:
        for number in range(100):
            await questions.ask(f"row {number}")

    async with anyio.create_task_group() as group:
        group.start_soon(questions.serve_forever)
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask_in_a_row)
            callers.start_soon(questions.ask, "other")
        group.cancel_scope.cancel()

    assert sent.index("other") < 5
