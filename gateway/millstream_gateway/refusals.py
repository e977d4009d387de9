"""Why a request is refused, as errors: each knows its status and says what to do.

What the library below raises is not repeated here; `problems` knows how that is told over HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from millstream.errors import MillstreamError


class Refused(MillstreamError):
    """A request was not done. ``status`` and ``kind`` tell programs why."""

    status = HTTPStatus.BAD_REQUEST
    kind = "bad-request"
    #: Whether the connection ends with it: what is left of the request was not read.
    closes = False

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says beside its body."""
        return {}


class Malformed(Refused):
    """The request is not what its description asks for."""

    kind = "malformed"


class Unauthenticated(Refused):
    """Nobody was named, or nobody who is known."""

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthenticated"

    def __init__(self, reason: str = "", *, error: str = "") -> None:
        super().__init__(
            reason or "show who you are: Authorization: Bearer TOKEN, or X-API-Key: KEY"
        )
        self._error = error

    @property
    def headers(self) -> Mapping[str, str]:
        """Name the scheme, as RFC 6750 has it."""
        error = f', error="{self._error}"' if self._error else ""
        return {"WWW-Authenticate": f'Bearer realm="millstream"{error}'}


class Forbidden(Refused):
    """Who calls may not do this, or not here."""

    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"


class NotFound(Refused):
    """There is nothing under this path."""

    status = HTTPStatus.NOT_FOUND
    kind = "not-found"


class NotAllowed(Refused):
    """There is something under this path, for other methods."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    kind = "method-not-allowed"

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed here; use {' or '.join(allowed)}")
        self._allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        """Name what is allowed."""
        return {"Allow": ", ".join(self._allowed)}


class Conflict(Refused):
    """It cannot be done as things stand."""

    status = HTTPStatus.CONFLICT
    kind = "conflict"


class TooSlow(Refused):
    """The request did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "too-slow"
    closes = True


class TooLarge(Refused):
    """The request is larger than is read."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too-large"
    closes = True


class NotUnderstood(Refused):
    """The body is of a kind that is not read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "unsupported-media-type"
    closes = True


class TooMany(Refused):
    """More was asked for than one may."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "too-many-requests"

    def __init__(self, what: str, after_s: float) -> None:
        self.after_s = after_s
        super().__init__(f"that is {what}; ask again in {self._whole()} s")

    @property
    def headers(self) -> Mapping[str, str]:
        """Say when to ask again."""
        return {"Retry-After": str(self._whole())}

    def _whole(self) -> int:
        return max(1, -int(-self.after_s // 1))


class Outlived(Refused):
    """The connection is older than the authority of its client, or than its certificate is good."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unavailable"
    closes = True

    def __init__(self) -> None:
        super().__init__("what this connection was opened with counts no more; open another one")


class Unavailable(Refused):
    """It cannot be done just now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "unavailable"

    @property
    def headers(self) -> Mapping[str, str]:
        """Say when to ask again."""
        return {"Retry-After": "1"}
