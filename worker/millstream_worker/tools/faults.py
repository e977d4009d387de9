"""What can go wrong between us and a server, before anybody judges it.

Promise: a fault says whether the request left this process, because only that decides whether a
call may be repeated. It does not know which tool was called, nor what repeating it would do.
"""

from __future__ import annotations

from typing import Any


class Fault(Exception):
    """Base of what transports raise. It never leaves the `tools` package."""


class Unsent(Fault):
    """Nothing reached the server."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class CircuitOpen(Unsent):
    """The breaker of the server lets nothing through for now."""


class AddressRefused(Fault, OSError):
    """A name led to an address that the server's entry does not allow."""


class Unfit(Fault):
    """The request can never be sent as it is, or never be answered by us."""


class Cut(Fault):
    """The request was sent and no answer came."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class ProcessEnded(Cut):
    """The server's process ended while the request was under way."""


class Malformed(Fault):
    """The request was sent and what came back is not an answer."""


class TooLarge(Fault):
    """The answer is larger than we take."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"its answer is larger than {limit:,} bytes")
        self.limit = limit


class SessionGone(Fault):
    """The server no longer knows our session. It has not executed the request."""


class ProcessGone(SessionGone):
    """The server's process had ended before the request was sent."""


class Refused(Fault):
    """An HTTP status other than 200, without a JSON-RPC error that would say more."""

    def __init__(self, status: int, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"HTTP {status}{': ' if reason else ''}{reason}")
        self.status = status
        self.retry_after = retry_after


class RpcError(Fault):
    """The server answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.data = data
