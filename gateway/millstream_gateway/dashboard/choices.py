"""What may be chosen in a form: the queues in which somebody may act, and what is served there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millstream.store import catalogues
from millstream.store.connection import Connection
from millstream_gateway.calls import Call


@dataclass(frozen=True, slots=True)
class Choices:
    """Knows what there is to choose from."""

    connection: Connection

    def queues(self, call: Call) -> list[str]:
        """Return the queues in which the caller has the role that the form asks for."""
        return [name for name in call.served if call.principal.may(call.needs, name)]

    async def workflows(self, queues: Sequence[str]) -> list[str]:
        """Return what workers of these queues serve just now, by name: a hint, and no bound."""
        found: set[str] = set()
        for queue in queues:
            found |= {each.name for each in await catalogues.known(self.connection, queue)}
        return sorted(found)
