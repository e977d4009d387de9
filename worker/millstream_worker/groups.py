"""End the tasks that an object keeps in the background, when it is left."""

from __future__ import annotations

from anyio.abc import TaskGroup


async def end(group: TaskGroup) -> None:
    """Cancel a group that was entered, and return when its tasks have ended.

    It is not told of the error of the body: that goes on by itself, and not wrapped in a group.
    """
    group.cancel_scope.cancel()
    await group.__aexit__(None, None, None)
