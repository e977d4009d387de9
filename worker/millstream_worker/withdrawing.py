"""Tell other agents to stop what they do for runs that have ended.

    end of the run  ->  outbox of its lane  ->  what is due in its queue  ->  CancelTask

Nothing here holds up the end of a run: that stands already. Each worker that may ask an agent takes
what is due, looks whether the task still goes on, and has it cancelled. So an agent is told at
least once, and one that is away is told later, ever more rarely, within bounds. That a task cannot
be cancelled is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio

from millstream.errors import AgentNotReached, AgentRejected, MillstreamError
from millstream.events import Emit, StoreFailed, TaskLeft
from millstream.store import claims, withdrawals
from millstream.store.connection import Connection
from millstream.store.withdrawals import Task, Withdrawal
from millstream_worker.agents.asked import Agents, MessageLost
from millstream_worker.agents.replies import ENDED, state_of

#: How often it is looked whether anything is due.
LOOK_S = 1.0
#: What is taken is kept from others for so long, and left before that is over.
_LEASE_S = 120.0
_TURN_S = 110.0
#: Pauses between tries: soon at first, at most ten minutes. All of them are about three hours.
_SOONEST_S, _LATEST_S = 1.0, 600.0
_MOST_TRIES = 26
#: The same for a message that may have arrived: it does, or its task is found, within a minute.
_FEW_TRIES = 6
#: The message has not arrived, or not yet.
_NOTHING = "its conversation has no task"
#: Before somebody else looks at what an agent does that is not declared here.
_ELSEWHERE_S = 5.0


@dataclass(frozen=True, slots=True)
class Withdrawer:
    """Withdraws tasks. ``withdraw_forever`` must run where agents are declared."""

    connection: Connection
    agents: Agents
    emit: Emit
    random: Random

    async def withdraw_forever(self, queues: Sequence[str]) -> None:
        """Take what is due in some queues; at once more while there is more."""
        while self.agents.names:
            claimed = [await self._withdraw_due(queue) for queue in queues]
            if max(claimed) < claims.CLAIMED:
                await anyio.sleep(LOOK_S)

    async def _withdraw_due(self, queue: str) -> int:
        try:
            due = await withdrawals.claim(self.connection, queue, _LEASE_S)
        except MillstreamError as error:
            self._failed(error)
            return 0
        async with anyio.create_task_group() as group:
            for each in due:
                group.start_soon(self._look_after, queue, each)
        return len(due)

    async def _look_after(self, queue: str, withdrawal: Withdrawal) -> None:
        try:
            if withdrawal.task.agent not in self.agents.names:
                await withdrawals.postpone(self.connection, queue, withdrawal, _ELSEWHERE_S)
                return
            reason: str | None = "it did not answer in time"
            with anyio.move_on_after(_TURN_S):
                reason = await self._withdrawn(withdrawal)
            if reason is None:
                await withdrawals.finish(self.connection, queue, withdrawal)
            else:
                await self._leave(queue, withdrawal, reason)
        except MillstreamError as error:
            # It is taken again when its lease is over.
            self._failed(error)

    async def _withdrawn(self, withdrawal: Withdrawal) -> str | None:
        """Have an agent stop; None when it has, or has ended, else the reason why not."""
        wanted = withdrawal.task
        try:
            task = await self._looked(wanted)
            if task is None:
                return _NOTHING
            if state_of(task) not in ENDED:
                await self.agents.cancel(wanted.agent, wanted.task or str(task.get("id", "")))
        except (AgentRejected, AgentNotReached, MessageLost) as error:
            return str(error)
        return None

    async def _looked(self, wanted: Task) -> Mapping[str, Any] | None:
        if not wanted.task:
            return await self.agents.find(wanted.agent, wanted.context)
        try:
            return await self.agents.task(wanted.agent, wanted.task)
        except AgentRejected:
            return {}  # whether there is anything to stop, it says when it is told to

    async def _leave(self, queue: str, withdrawal: Withdrawal, reason: str) -> None:
        """Try it again later, or never."""
        count = await withdrawals.tried(self.connection, queue, withdrawal)
        if count < (_MOST_TRIES if withdrawal.task.task else _FEW_TRIES):
            pause_s = min(_LATEST_S, _SOONEST_S * 2.0 ** (count - 1)) * self.random.uniform(0.75, 1)
            await withdrawals.postpone(self.connection, queue, withdrawal, pause_s)
            return
        await withdrawals.finish(self.connection, queue, withdrawal)
        if reason != _NOTHING:
            agent, task = withdrawal.task.agent, withdrawal.task.task
            self.emit(
                TaskLeft(
                    run_id=withdrawal.run_id, queue=queue, agent=agent, task=task, reason=reason
                )
            )

    def _failed(self, error: MillstreamError) -> None:
        self.emit(StoreFailed(during="withdrawals", error=f"{type(error).__name__}: {error}"))
