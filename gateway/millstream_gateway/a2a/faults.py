"""What goes wrong here, in the words of the protocol.

What the protocol has no word for (too many requests, a store that is away, a missing role) stays
as it is: HTTP and gRPC have statuses for it, which each binding knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from a2a.utils.errors import InvalidParamsError, TaskNotFoundError, UnsupportedOperationError

from millstream.errors import PayloadTooLarge, RunEnded, UnknownRun, UsageError, said
from millstream_gateway.refusals import Conflict, Malformed, NotFound


@contextmanager
def translated() -> Iterator[None]:
    """Turn our errors into those of the protocol, where it has some."""
    try:
        yield
    except UnknownRun as error:
        raise TaskNotFoundError(f"there is no task {error.run_id!r}") from error
    except NotFound as error:
        raise TaskNotFoundError(said(error)) from error
    except RunEnded as error:
        raise UnsupportedOperationError(said(error)) from error
    except (Malformed, Conflict, UsageError, PayloadTooLarge) as error:
        raise InvalidParamsError(said(error)) from error
