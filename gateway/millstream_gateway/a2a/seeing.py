"""Which tasks somebody may see: those of their tenant. Others are answered as if they were not."""

from __future__ import annotations

from millstream.client import Client, Run
from millstream.errors import UnknownRun
from millstream.model.run import RunStatus
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.names import run_of
from millstream_gateway.auth.principals import Role


async def visible(
    client: Client, caller: Caller, task_id: str, needs: Role = Role.VIEWER
) -> tuple[Run, RunStatus]:
    """Return the run of a task. Raises `UnknownRun`, `TaskNotFoundError` or `Forbidden`."""
    queue, run_id = run_of(task_id, caller.served)
    run = client.run(run_id, caller.queue(needs, queue))
    status = await run.status()
    if not caller.principal.sees(status.tenant):
        raise UnknownRun(run_id, queue)
    return run, status
