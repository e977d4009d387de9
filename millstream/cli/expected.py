"""Whether somebody is there who can run a workflow, asked before anything is left in Redis.

Promise: a workflow that no living worker of the queue knows is refused, since its runs would wait
for nobody; with no worker alive it is accepted, with a remark. It does not know who comes later.
"""

from __future__ import annotations

from millstream.cli.access import one_queue
from millstream.cli.flags import ClientConfig
from millstream.cli.hints import again
from millstream.client import Client
from millstream.errors import UnknownWorkflow


async def expect_a_worker(
    client: Client, config: ClientConfig, workflow: str, version: str | None
) -> str | None:
    """Return a remark when nobody serves the queue.

    Raises `UnknownWorkflow` when somebody does, and knows no such workflow.
    """
    queue = one_queue(config)
    agents = await client.agents(queue)
    known = {name for agent in agents for name in agent.workflows}
    if not agents:
        remedy = again(config, "worker", "APP", queue=queue)
        return f"no worker serves queue {queue!r} now; its runs wait for one: {remedy}"

    wanted = f"{workflow}@{version}" if version else workflow
    if wanted not in known | {name.partition("@")[0] for name in known}:
        raise UnknownWorkflow(workflow, version, ", ".join(sorted(known)))
    return None
