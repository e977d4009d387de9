"""What lies between a process and the store: connections that are slow, break, and repeat.

A request is on its way for a while, is executed by the server whatever has become of its sender,
and its reply is on its way for a while. `Network.fate` decides what happens to each request. What
is sent while nothing comes through is not always lost: a machine sends it again and again, also
for a process that has closed the connection meanwhile, and so it may arrive long afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

import fakeredis

from tests.simulation.virtual import Host, Ordered, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.wire import ServerSocket

#: Commands that were sent together, each as its fields.
Request = list[list[bytes]]


class Fate(Enum):
    """What becomes of one request."""

    FINE = "fine"
    REFUSED = "refused"  # an error before anything was sent
    LOST = "lost"  # sent, never executed; the connection breaks
    REPLY_LOST = "reply lost"  # executed; the connection breaks before the reply arrives
    LATE = "late"  # the connection breaks, and the request is executed seconds later
    TWICE = "twice"  # executed, and executed again seconds later


@dataclass(slots=True, eq=False)
class Link:
    """The way of one process to the store. Its connections share its fate."""

    host: Host
    #: ``refuse``: connections break at once; ``hang``: nothing comes through, in silence.
    cut: str = ""
    #: What was sent while nothing came through.
    stuck: list[Request] = field(default_factory=list)


class Network:
    """All links to one in-memory server."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.server = fakeredis.FakeServer(server_type="redis", version=(7, 0))
        self.server.dbs[0]._change_callbacks = Ordered()  # type: ignore[assignment]
        #: Where Redis is: '' here; ``refuse`` or ``hang`` as with a link that is cut.
        self.away = ""
        #: Until when Redis answers nobody; what was sent is executed then.
        self.stalled_until = 0.0
        #: The most that a message is on its way, in seconds.
        self.latency_s = 0.002
        self.fate: Callable[[Link], tuple[Fate, float]] = lambda _: (Fate.FINE, 0.0)
        #: Told of every command that the server has executed, with its reply.
        self.observe: Callable[[Link, list[bytes], Any], None] = lambda *_: None
        self._sockets: Ordered[ServerSocket] = Ordered()

    def delay(self) -> float:
        """Draw how long a message is on its way: mostly short, now and then long."""
        return self.latency_s * (0.05 + self.random.random() ** 4)

    def reachable(self, link: Link) -> bool:
        """Whether messages come through."""
        return not (self.away or link.cut)

    # -- what breaks ---------------------------------------------------------------------------

    def break_all(self) -> None:
        """Redis goes away: every connection breaks, and nobody waits there any more."""
        for socket in self._sockets:
            socket.break_wire()

    def break_link(self, link: Link) -> None:
        """Every connection of one process breaks."""
        for socket in self._sockets:
            if socket.link is link:
                socket.break_wire()

    def restart(self) -> None:
        """Redis forgets its scripts, its connections and its subscribers, never its data."""
        self.break_all()
        self.server.script_cache.clear()

    def heal(self, link: Link) -> None:
        """A link is whole again: some of what was sent meanwhile arrives after all."""
        link.cut = ""
        stuck, link.stuck = link.stuck, []
        for request in stuck:
            if self.random.random() < 0.5:
                self.execute_later(link, request, self.loop.time() + 0.5 * self.random.random())

    # -- what the sockets tell -----------------------------------------------------------------

    def opened(self, socket: ServerSocket) -> None:
        """A connection was accepted."""
        self._sockets.add(socket)

    def hang_up(self, socket: ServerSocket) -> None:
        """The server learns that the other side has closed the connection."""
        self._sockets.discard(socket)
        socket.hang_up()

    def execute_later(self, link: Link, request: Request, at: float) -> None:
        """Have a request executed although nobody waits for it any more."""
        self.loop.outside(at, self._execute, link, request)

    def _execute(self, link: Link, request: Request) -> None:
        from tests.simulation.wire import ServerSocket

        if not self.away:
            socket = ServerSocket(self, link)
            socket.execute(request)
            self.hang_up(socket)
