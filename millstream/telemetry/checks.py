"""Checks of what a process needs, beside what its loops tell anyway: run aside, and remembered.

Promise: a check that hangs is a check that fails, within its time-out, and holds up no other; a
probe reads what the last one found and never waits for one. They concern readiness alone: nothing
that a restart would not mend may get a process killed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from millstream.errors import said
from millstream.telemetry.health import Health


@dataclass(frozen=True, slots=True)
class Check:
    """Something to be asked; ``ask`` returns why it is not well, or None."""

    name: str
    ask: Callable[[], Awaitable[str | None]]
    timeout_s: float = 2.0
    every_s: float = 5.0


async def check_forever(health: Health, checks: Sequence[Check]) -> None:
    """Ask all of them, side by side, again and again."""
    async with anyio.create_task_group() as group:
        for check in checks:
            group.start_soon(_repeat, health, check)


async def _repeat(health: Health, check: Check) -> None:
    while True:
        health.checked(check.name, await _found(check))
        await anyio.sleep(check.every_s)


async def _found(check: Check) -> str | None:
    with anyio.move_on_after(check.timeout_s):
        try:
            return await check.ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
            return f"{type(error).__name__}: {said(error)}"

    return f"it did not answer within {check.timeout_s:g} s"
