"""Stop a task: who began it may, and operators. It is audited like every other cancellation."""

from __future__ import annotations

from millstream.client import Client, Run
from millstream.errors import ResultTimeout, RunCancelled, RunFailed
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.tasks import Tasks
from millstream_gateway.audit import Act, Audit, audited
from millstream_gateway.auth.principals import Role

#: A run that somebody holds is told, and ends within moments; it is waited for so long.
_END_S = 5.0


class Stopping:
    """Stops tasks."""

    def __init__(self, client: Client, tasks: Tasks, audit: Audit) -> None:
        self._client = client
        self._tasks = tasks
        self._audit = audit

    async def stop(self, caller: Caller, run: Run) -> None:
        """Ask a run to end, and wait a moment until it has. Raises `Forbidden`."""
        talk = await self._tasks.talk(run)
        own = talk.owner == caller.principal.name
        caller.queue(Role.SUBMITTER if own else Role.OPERATOR, run.queue)
        # What the client does from here on, the store's audit has in the caller's name.
        with self._client.auditor.acting(caller.principal.name, caller.origin):
            await audited(self._audit, run.cancel, lambda outcome: _act(caller, run, outcome))
        try:
            await run.result(_END_S)
        except (RunCancelled, RunFailed, ResultTimeout):
            return


def _act(caller: Caller, run: Run, outcome: str) -> Act:
    return Act(
        actor=caller.principal.name,
        tenant=caller.principal.tenant,
        action="cancel",
        queue=run.queue,
        target=run.id,
        origin=caller.origin,
        outcome=outcome,
    )
