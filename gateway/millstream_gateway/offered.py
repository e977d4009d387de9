"""The workflows that a caller may start, under the names by which other programs know them.

Agents and MCP hosts see one list over all queues. A workflow of the first queue goes by its own
name, one of another queue by ``queue__workflow``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from millstream.store import catalogues
from millstream.store.catalogues import Described
from millstream.store.connection import Connection

#: Between a queue and a workflow, in names of other queues than the first.
BETWEEN = "__"


@dataclass(frozen=True, slots=True)
class Offered:
    """A workflow that can be started."""

    name: str
    queue: str
    described: Described


def parted(name: str, served: Sequence[str]) -> tuple[str | None, str]:
    """Return the queue and the workflow of a name; None is the first queue.

    A name that has the mark in it may be either: a queue that is served decides.
    """
    queue, between, workflow = name.partition(BETWEEN)
    if between and queue in served[1:]:
        return queue, workflow
    return None, name


async def offered(
    connection: Connection, served: Sequence[str], may: Callable[[str], bool]
) -> list[Offered]:
    """Return what workers serve just now in the queues where it may be started."""
    found = []
    for queue in served:
        if may(queue):
            # Of several versions the last: a new run starts on the one registered last.
            latest = {each.name: each for each in await catalogues.known(connection, queue)}
            mark = "" if queue == served[0] else f"{queue}{BETWEEN}"
            found += [Offered(f"{mark}{name}", queue, each) for name, each in latest.items()]
    return found
