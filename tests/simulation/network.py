"""What lies between a process and the store: connections that are slow, break, and repeat.

A request is on its way for a while, is executed by the server whatever has become of its sender,
and its reply is on its way for a while. `Network.fate` decides what happens to each request.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

import fakeredis
import redis.asyncio

from tests.simulation.lua import LUA
from tests.simulation.quick import QuickSocket
from tests.simulation.virtual import Host, Ordered, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.wires import Wire

#: Read by a process where its connection is broken.
BROKEN = object()
numbers = itertools.count(1)
#: A command as its words; as bytes where several of them come together.
Request = list[bytes] | bytes


class Fate(Enum):
    """What becomes of one request."""

    FINE = "fine"
    REFUSED = "refused"  # an error before anything was sent
    LOST = "lost"  # sent, never executed; the connection breaks
    REPLY_LOST = "reply lost"  # executed; the connection breaks before the reply arrives
    LATE = "late"  # the connection breaks, and the request is executed seconds later
    TWICE = "twice"  # executed, and executed again seconds later
    HELD_UP = "held up"  # on its way until the director lets it through


@dataclass(slots=True, eq=False)
class Link:
    """The way of one process to the store. Its connections share its fate."""

    host: Host
    #: ``refuse``: connections break at once; ``hang``: nothing comes through, in silence.
    cut: str = ""
    wires: Ordered[Wire] = field(default_factory=Ordered)


class Network:
    """All links to one in-memory server."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self.server = fakeredis.FakeServer(server_type="redis", version=(7, 0))
        database = self.server.dbs[0]
        database._change_callbacks = Ordered()  # type: ignore[assignment]
        database.notify_watch = self._changed  # type: ignore[method-assign]
        #: Where Redis is: '' here; ``refuse`` or ``hang`` as with a link that is cut.
        self.away = ""
        #: Until when Redis answers nobody; what was sent is executed then.
        self.stalled_until = 0.0
        #: The most that a message is on its way, in seconds.
        self.latency_s = 0.002
        self.fate: Callable[[Link, Request], tuple[Fate, float]] = lambda *_: (Fate.FINE, 0.0)
        #: Told of every command that the server has executed, with its reply.
        self.observe: Callable[[Link, list[bytes], Any], None] = lambda *_: None
        self._sockets: Ordered[ServerSocket] = Ordered()
        self._held_up: list[tuple[Link, Request]] = []

    def delay(self) -> float:
        """Draw how long a message is on its way: mostly short, now and then long."""
        return self.latency_s * (0.05 + self.random.random() ** 4)

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

    def opened(self, socket: ServerSocket) -> None:
        """A connection was accepted."""
        self._sockets.add(socket)

    def hang_up(self, socket: ServerSocket) -> None:
        """The server learns that the other side has closed the connection."""
        self._sockets.discard(socket)
        socket.hang_up()

    def _changed(self, key: bytes) -> None:
        """Wake those who wait for deliveries: for a stream only, everything else is not read so."""
        if b":stream:" in key:
            for wake in self.server.dbs[0]._change_callbacks:
                wake()

    def hold_up(self, link: Link, request: Request) -> None:
        """Keep a request on its way."""
        self._held_up.append((link, request))

    def let_through(self, link: Link) -> None:
        """Let what one process sent arrive now, whatever has become of its connection."""
        for sender, request in self._held_up:
            if sender is link:
                self.execute_later(link, request, self.loop.time())
        self._held_up = [held for held in self._held_up if held[0] is not link]

    def execute_later(self, link: Link, request: Request, at: float) -> None:
        """Have a request executed although nobody waits for it any more."""

        def execute() -> None:
            if self.away:
                return
            socket = ServerSocket(self, link, None)
            socket.take(request)
            socket.hang_up()

        self.loop.outside(at, execute)


class ServerSocket(QuickSocket):
    """The server's end of one connection."""

    def __init__(self, network: Network, link: Link, wire: Wire | None) -> None:
        self.number = next(numbers)
        super().__init__(network.server, 0, client_class=redis.asyncio.Redis)
        self.network = network
        self.link = link
        self.wire = wire
        #: Replies are not sent any more.
        self.mute = False
        self._replied = 0.0
        self._requested = 0.0
        self._reply: Any = None
        self._blocking_task: asyncio.Task[Any] | None = None
        network.opened(self)

    def __hash__(self) -> int:
        return self.number

    def request(self, request: Request, fate: Fate) -> None:
        """Take a request in, after its way through the network; they stay in their order."""
        loop = self.network.loop
        self._requested = max(
            self._requested, loop.time() + self.network.delay(), self.network.stalled_until
        )
        loop.outside(self._requested, self._arrived, request, fate)

    def take(self, request: Request) -> None:
        """Execute what was requested."""
        if isinstance(request, bytes):
            self.sendall(request)
        else:
            self.execute(request)

    def _arrived(self, request: Request, fate: Fate) -> None:
        if self.network.away == "hang" or self.link.cut == "hang":
            return
        if self._killed or self.network.away or self.link.cut:
            return
        if fate in {Fate.LOST, Fate.LATE}:
            self.break_wire()
            return

        self.mute = self.mute or fate is Fate.REPLY_LOST
        self.take(request)
        if self.mute:
            self.break_wire()

    def break_wire(self) -> None:
        """Let the process find out that the connection is broken."""
        self.network.hang_up(self)
        super().put_response(BROKEN)

    def hang_up(self) -> None:
        """Forget the other side: a command that blocks for it ends."""
        if self._blocking_task is not None:
            self._blocking_task.cancel()
        if not self._killed:
            self.kill()

    # -- what fakeredis calls ------------------------------------------------------------------

    def put_response(self, msg: Any) -> None:
        """Send a reply, or a published message, on its way."""
        self._reply = msg
        if self._killed or self.mute or self.wire is None:
            return
        loop = self.network.loop
        self._replied = max(self._replied, loop.time() + self.network.delay())
        loop.outside(self._replied, self._deliver, msg)

    def _deliver(self, msg: Any) -> None:
        if not (self._killed or self.network.away or self.link.cut):
            super().put_response(msg)

    def _process_command(self, fields: list[bytes]) -> None:
        self._reply = None
        super()._process_command(fields)
        self.network.observe(self.link, fields, self._reply)

    def _blocking(self, timeout: Any, func: Any, shape: Any = None) -> Any:
        # fakeredis takes an empty answer for an answer, and does not block.
        return super()._blocking(timeout, lambda first: func(first) or None, shape)

    async def _async_blocking(self, *args: Any, **kwargs: Any) -> None:
        self._blocking_task = asyncio.current_task()
        await super()._async_blocking(*args, **kwargs)

    def eval(self, script: bytes, numkeys: int, *rest: bytes) -> Any:
        """Run a script; its text is remembered."""
        self._server.script_cache[LUA.sha(script)] = script
        return LUA.run(self, script, rest[:numkeys], rest[numkeys:])

    def hrandfield(self, key: Any, *args: Any) -> list[bytes]:
        """Return the first fields of a hash, where Redis returns any."""
        return sorted(key.value)[: int(args[0])]

    def smembers(self, key: Any) -> list[bytes]:
        """Return the members of a set, in the same order every time."""
        return sorted(key.value)
