"""Make the schedules that an application brings along, when a worker of it starts.

Whoever comes first makes them; the others find them as they should be, and write nothing. What an
application no longer has is not taken away: another release, or another program, may still want it.
"""

from __future__ import annotations

import anyio

from millstream.client.schedules import Schedules
from millstream.errors import StoreError, UsageError
from millstream.events import Emit, ScheduleFailed, StoreFailed
from millstream.workflow import Workflows


async def apply_schedules(schedules: Schedules, workflows: Workflows, emit: Emit) -> None:
    """Apply every schedule, however long Redis is away; one that is refused is told of."""
    for schedule in workflows.schedules:
        while True:
            try:
                await schedules.apply([schedule])
                break
            except StoreError as error:
                emit(StoreFailed(during="schedules", error=str(error)))
                await anyio.sleep(1.0)
            except UsageError as error:
                emit(ScheduleFailed(schedule=schedule.name, error=str(error)))
                break
