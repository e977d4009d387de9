"""What happens in a gateway: it starts and leaves, requests are served, people act."""

from __future__ import annotations

from millstream.events.root import Happening


class GatewayStarted(Happening, frozen=True, kw_only=True):
    """The process answers HTTP."""

    port: int
    queues: tuple[str, ...]


class GatewayDraining(Happening, frozen=True, kw_only=True):
    """The process accepts nothing new, ends its streams and finishes what is under way."""

    requests: int
    grace_s: float


class RequestServed(Happening, frozen=True, kw_only=True):
    """A request was answered, or its stream has ended."""

    method: str
    #: The template of its route: never the path that was asked for.
    endpoint: str
    status: int
    took_s: float
    #: It was a stream: how long it took says how long somebody listened.
    streamed: bool
    actor: str
    #: What nobody foresaw, where that is why it failed.
    error: str | None = None


class OperatorActed(Happening, frozen=True, kw_only=True):
    """Somebody changed a run, or tried to. ``outcome`` is ``done``, or what kept it from that."""

    actor: str
    action: str
    queue: str
    run_id: str
    origin: str
    outcome: str
