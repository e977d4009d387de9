"""Queues over HTTP: what they hold, what can be run in them, and their dead letters."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.client import Client
from millstream.errors import UnknownRun
from millstream.model.run import RunStatus
from millstream.store import catalogues
from millstream.store.connection import Connection
from millstream_gateway.audit import Audit, audited
from millstream_gateway.calls import Call, Reply
from millstream_gateway.refusals import Conflict
from millstream_gateway.rest import shapes
from millstream_gateway.rest.runs import act_of, retried


class Queues:
    """The handlers."""

    def __init__(self, client: Client, connection: Connection, audit: Audit) -> None:
        self._client = client
        self._connection = connection
        self._audit = audit

    async def list(self, call: Call) -> Reply:
        """Show the queues that the caller may see."""
        names = [name for name in call.served if call.principal.may(call.needs, name)]
        views = [await self.viewed(name) for name in names]
        return Reply(value=shapes.QueueList(queues=views))

    async def show(self, call: Call) -> Reply:
        """Show one queue."""
        return Reply(value=await self.viewed(call.queue(call.path["queue"])))

    async def workflows(self, call: Call) -> Reply:
        """Show what the workers of a queue can run."""
        queue = call.queue(call.query.queue)
        found = await catalogues.known(self._connection, queue)
        views = [
            shapes.WorkflowView(
                name=each.name,
                version=each.version,
                description=each.description,
                arguments=each.arguments,
            )
            for each in found
        ]
        return Reply(value=shapes.WorkflowList(queue=queue, workflows=views))

    async def dead(self, call: Call) -> Reply:
        """List dead letters, a page at a time."""
        asked: shapes.DeadQuery = call.query

        def matches(status: RunStatus) -> bool:
            return call.principal.sees(status.tenant) and asked.workflow in {None, status.workflow}

        found = await self._client.page(
            call.queue(call.path["queue"]),
            dead=True,
            matches=matches,
            limit=asked.limit,
            cursor=asked.cursor,
        )
        runs = [shapes.view(status) for status in found.runs]
        return Reply(value=shapes.RunList(runs=runs, next=found.cursor))

    async def replay(self, call: Call) -> Reply:
        """Start dead letters once more, each from where its journal ends."""
        queue = call.queue(call.path["queue"])
        return Reply(value=shapes.Replayed(runs=await self.replayed(call, queue, call.body.ids)))

    async def replayed(self, call: Call, queue: str, ids: Sequence[str]) -> dict[str, str]:
        """Start runs once more; return what became of each."""
        return {run_id: await self._replayed(call, queue, run_id) for run_id in dict.fromkeys(ids)}

    async def _replayed(self, call: Call, queue: str, run_id: str) -> str:
        run = self._client.run(run_id, queue)
        try:
            if not call.principal.sees((await run.status()).tenant):
                return "unknown"
            describe = act_of(call, "replay", queue, run_id)
            with self._client.auditor.acting(call.principal.name, call.request.remote or ""):
                await audited(self._audit, lambda: retried(run), describe)
        except UnknownRun:
            return "unknown"
        except Conflict:
            return str((await run.status()).state)
        return "queued"

    async def viewed(self, name: str) -> shapes.QueueView:
        """Return what a queue holds."""
        depth = await self._client.depth(name)
        agents = await self._client.agents(name)
        return shapes.QueueView(
            queue=name,
            waiting=depth.waiting,
            running=depth.running,
            scheduled=depth.scheduled,
            parked=depth.parked,
            dead=depth.dead,
            oldest_s=depth.oldest_s,
            workers=len(agents),
            slots=sum(agent.concurrency for agent in agents),
        )
