"""Checks run aside, side by side, and never longer than their time-out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from millstream.telemetry.checks import Check, check_forever
from millstream.telemetry.health import Health


async def hangs() -> str | None:
    await anyio.sleep_forever()
    return None


async def breaks() -> str | None:
    raise ValueError("no such device")


async def fine() -> str | None:
    return None


async def ails() -> str | None:
    return "no MCP server answers"


class Heard(Health):
    """Tells when every check has been heard of."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.found: dict[str, str | None] = {}
        self.all = anyio.Event()
        self._names = names

    def checked(self, name: str, fault: str | None) -> None:
        super().checked(name, fault)
        self.found[name] = fault
        if len(self.found) == self._names:
            self.all.set()


async def test_each_check_is_bounded_and_none_waits_for_another() -> None:
    """One that hangs is one that fails, and the others are heard meanwhile."""
    asked: dict[str, Callable[[], Awaitable[str | None]]] = {
        "hangs": hangs, "breaks": breaks, "fine": fine, "ails": ails,
    }  # fmt: skip
    health = Heard(len(asked))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            checks = [Check(name, ask, timeout_s=0.05) for name, ask in asked.items()]
            group.start_soon(check_forever, health, checks)
            await health.all.wait()
            group.cancel_scope.cancel()

    assert health.found == {
        "fine": None,
        "ails": "no MCP server answers",
        "breaks": "ValueError: no such device",
        "hangs": "it did not answer within 0.05 s",
    }


async def test_a_check_is_repeated_and_its_last_answer_counts() -> None:
    answers = ["away", None]
    health = Health()
    health.store_answered()
    health.claim_turned()

    async def ask() -> str | None:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async with anyio.create_task_group() as group:
        group.start_soon(check_forever, health, [Check("tools", ask, every_s=0.01)])
        with anyio.fail_after(5):
            while "tools" not in health.ready().checks:
                await anyio.lowlevel.checkpoint()
            assert health.ready().reason == "away"
            while not health.ready().ok:
                await anyio.sleep(0.001)
        group.cancel_scope.cancel()
