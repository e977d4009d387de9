"""What people are asked: whether something may be done, and what became of a call."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from millstream import Approval, Context, RunFailed, SignalTimeout, Workflows
from millstream.errors import UsageError
from millstream.model.tool import OnUnknown
from millstream.testing import Harness
from millstream_worker.embedded import FunctionTools

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def deploy(ctx: Context) -> object:
    try:
        found = await ctx.approve("deploy?", data={"to": "prod"}, timeout=60, key="prod")
    except SignalTimeout:
        return "nobody"
    return [found.approved, found.by, found.comment]


@app.workflow()
async def pay(ctx: Context) -> object:
    return (await ctx.tool("bank", "pay", {"sum": 5})).data


class AskingTools(FunctionTools):
    """Tools whose outcome an operator is asked for, when nobody knows it."""

    async def prepare(
        self, server: str, tool: str, arguments: Mapping[str, Any], *, run_id: str
    ) -> Any:
        prepared = await super().prepare(server, tool, arguments, run_id=run_id)
        prepared.on_unknown = OnUnknown.ASK
        return prepared


class Bank:
    """Pays, and its worker dies the first time, before anybody hears of it."""

    def __init__(self) -> None:
        self.paid = 0
        self.bench: Harness

    def pay(self, sum: int) -> str:
        self.paid += 1
        if self.paid == 1:
            self.bench.crash()
        return f"paid {sum}"


async def test_a_question_is_listed_and_its_answer_comes_back() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("deploy")
        await bench.settle()
        (found,) = await bench.client.approvals()
        assert (found.run_id, found.question, found.data) == (run.id, "deploy?", {"to": "prod"})
        assert found.due == pytest.approx(found.asked + 60)
        assert (await run.status()).waits_for == "approval 'approve:prod'"
        await run.approve(found.key, False, by="ada", comment="not on a Friday")
        with contextlib.suppress(UsageError):  # the first answer may have been taken already
            await run.approve(found.key, True, by="bob")
        assert await run.result(10) == [False, "ada", "not on a Friday"]
        assert await bench.client.approvals() == []


async def test_a_token_answers_and_is_listed_nowhere() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("deploy")
        event = await anext(run.events())
        token = event.data["token"]
        assert (event.name, len(token)) == ("approval", 40)
        await bench.settle()
        assert token not in repr(await bench.client.approvals())
        with pytest.raises(UsageError, match="no open question"):
            await run.approve("0" * 40)
        await run.approve(token, by="link")
        assert await run.result(10) == [True, "link", None]


async def test_a_question_that_nobody_answers_ends_in_time() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("deploy")
        await bench.settle()
        await bench.jump(61)
        assert await run.result(10) == "nobody"
        with pytest.raises(UsageError, match="no open question"):
            await run.approve()


def test_an_answer_is_a_value() -> None:
    assert Approval(approved=True) == Approval(approved=True, by=None, comment=None)


@pytest.mark.parametrize(
    ("verdict", "result", "paid"),
    [("retry", "paid 5", 2), ({"result": {"receipt": 7}}, {"receipt": 7}, 1), ("fail", None, 1)],
)
async def test_an_operator_says_what_became_of_a_call(
    verdict: str | dict[str, Any], result: object, paid: int
) -> None:
    bank = Bank()
    async with Harness(app, tools=AskingTools({"bank": {"pay": bank.pay}})) as bench:
        bank.bench = bench
        run = await bench.client.enqueue("pay")
        key = await _asked(bench, run)
        await run.resolve(key, verdict)
        with contextlib.suppress(UsageError):  # the first word may have been taken already
            await run.resolve(key, "fail" if verdict != "fail" else "retry")
        if result is None:
            with pytest.raises(RunFailed, match="an operator gave") as caught:
                await run.result(10)
            assert caught.value.cause == "OutcomeUnknown"
        else:
            assert await run.result(10) == result
    assert (bank.paid, bench.crashes) == (paid, 1)


async def test_a_step_that_is_not_in_doubt_is_not_resolved() -> None:
    async with Harness(app) as bench:
        run = await bench.client.enqueue("deploy")
        for verdict in ("retry", {"result": 1, "more": 2}, "perhaps"):
            with pytest.raises(UsageError):
                await run.resolve("bank/pay#0", verdict)


async def _asked(bench: Harness, run: Any) -> str:
    """Wait until the run waits for its operator; return the key of the step."""
    while (status := await run.status()).state != "parked":
        await bench.settle()
    assert status.waits_for == "an operator to resolve step 'bank/pay#0'"
    return "bank/pay#0"
