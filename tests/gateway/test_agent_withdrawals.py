"""A run ends before another agent's task does: the agent is told to stop, whatever dies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import anyio
import pytest

from millstream import Client, Run, RunCancelled, RunFailed
from millstream.events import Event, TaskLeft
from millstream.model.run import RunState
from millstream.store import withdrawals
from millstream_worker import withdrawing
from millstream_worker.agents.asked import MessageLost, NoAgents
from tests.gateway.between import Between
from tests.gateway.served import Served
from tests.gateway.test_agent_calls import Us, them, us, way

__all__ = ["them", "way"]  # fixtures

NAP = {"agent": "them", "message": {"seconds": 3600}, "skill": "naps"}


@contextlib.asynccontextmanager
async def working(we: Us) -> AsyncIterator[None]:
    """One of our workers, for this block."""
    async with anyio.create_task_group() as group:
        worker = we.worker()
        await worker.start(group)
        yield
        worker.crash()
        group.cancel_scope.cancel()


async def until(run: Run, *states: RunState) -> None:
    """Return when a run is in one of these states."""
    with anyio.fail_after(20):
        while (await run.status()).state not in states:
            await anyio.sleep(0.01)


async def tasks_of(client: Client, count: int = 1) -> list[Run]:
    """The tasks that an agent was given, once there are so many."""
    with anyio.fail_after(20):
        while len(found := await client.list()) < count:
            await anyio.sleep(0.01)
    return [client.run(each.id) for each in found]


async def parked(we: Us, them: Served) -> tuple[Run, Run]:
    """A run of ours that waits for an agent, and its task there."""
    run = await we.client.enqueue("asks", NAP)
    (task,) = await tasks_of(them.client)
    await until(run, RunState.PARKED)
    return run, task


async def test_cancelling_goes_down_to_an_agent(them: Served, way: Between) -> None:
    """The run ends at once; its task follows, also when the agent is away at first."""
    way.refuse_cancels = [503]
    async with us(way.url, them.token) as we, working(we):
        run, task = await parked(we, them)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(20)
        with pytest.raises(RunCancelled):
            await task.result(20)
    assert way.asked.count("CancelTask") == 2
    assert way.sent == 1


@pytest.mark.slow
async def test_a_run_that_times_out_leaves_no_task_and_begins_it_anew(
    them: Served, way: Between
) -> None:
    """An operator's retry must not find the task that was stopped for it."""
    async with us(way.url, them.token) as we, working(we):
        run = await we.client.enqueue("asks", {**NAP, "timeout": 0.2})
        with pytest.raises(RunFailed, match="AgentTimeout"):
            await run.result(20)
        (task,) = await tasks_of(them.client)
        with pytest.raises(RunCancelled):
            await task.result(20)
        await run.retry()
        with pytest.raises(RunFailed, match="AgentTimeout"):
            await run.result(20)
        for each in await tasks_of(them.client, 2):
            with pytest.raises(RunCancelled):
                await each.result(20)
    assert way.sent == 2


@pytest.mark.slow
async def test_a_wait_that_an_operator_takes_up_again_begins_anew(
    them: Served, way: Between
) -> None:
    """What stands in the journal is a task that was stopped; another one is begun, once."""
    async with us(way.url, them.token) as we, working(we):
        run, task = await parked(we, them)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await task.result(20)
        await run.retry()
        first, second = await tasks_of(them.client, 2)
        other = first if first.id != task.id else second
        await until(run, RunState.PARKED)
        await other.cancel()
        # This one was not stopped by us: that is an answer.
        assert (await run.result(20))["state"] == "canceled"
    assert way.sent == 2


@pytest.mark.slow
async def test_a_message_without_an_answer_is_withdrawn_too(them: Served, way: Between) -> None:
    """Its task is found by the conversation: the worker died before it knew of it."""
    async with us(way.url, them.token) as we, anyio.create_task_group() as group:
        first = we.worker()
        dead = anyio.Event()

        def die() -> None:
            first.crash()
            dead.set()

        way.delivered = die
        run = await we.client.enqueue("asks", NAP)
        await first.start(group)
        await dead.wait()
        way.delivered = lambda: None
        await run.cancel()
        await first.bury(we.client._connection)
        async with working(we):
            with pytest.raises(RunCancelled):
                await run.result(20)
            (task,) = await tasks_of(them.client)
            with pytest.raises(RunCancelled):
                await task.result(20)
    assert way.sent == 1


class Away(NoAgents):
    """An agent that never answers, or has nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @property
    def names(self) -> frozenset[str]:
        """It is declared."""
        return frozenset({"them"})

    async def task(self, agent: str, task_id: str) -> dict[str, Any]:
        """Look at a task."""
        raise MessageLost(f"{agent} does not answer")

    async def find(self, agent: str, context_id: str) -> dict[str, Any] | None:
        """Look for one."""
        self.asked.append(context_id)
        return None


async def test_what_cannot_be_withdrawn_is_given_up_and_told(memory_url: str) -> None:
    """After some hours; an agent that is declared elsewhere is left to others."""
    async with Client(memory_url) as client:
        connection = client._connection
        told: list[Event] = []
        away = Away()
        left = [
            withdrawals.Withdrawal("r1", withdrawals.Task("them", "t1", "c1")),
            withdrawals.Withdrawal("r2", withdrawals.Task("them", "", "c2")),
            withdrawals.Withdrawal("r3", withdrawals.Task("others", "t3", "c3")),
        ]
        await withdrawals.put(connection, "default", left)
        withdrawer = withdrawing.Withdrawer(connection, away, told.append, Random(1))
        for _ in range(30):
            for each in left:
                await withdrawals.postpone(connection, "default", each, -1)
            await withdrawer._withdraw_due("default")
        assert [(each.run_id, each.task) for each in told if isinstance(each, TaskLeft)] == [
            ("r1", "t1")
        ]
        # What never arrived is no task that goes on.
        assert away.asked == ["c2"] * withdrawing._FEW_TRIES
        await withdrawals.postpone(connection, "default", left[2], -1)
        assert await withdrawals.claim(connection, "default", 60) == [left[2]]
