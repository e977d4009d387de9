"""Tell an error over HTTP: a status, and a document as RFC 9457 has it.

An error of the library tells itself. One that nobody foresaw is told without its text: that may
hold anything, and belongs in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from millstream.errors import (
    IdConflict,
    MillstreamError,
    PayloadTooLarge,
    QueueFull,
    RunEnded,
    ScheduleConflict,
    SealingError,
    SignalsFull,
    StoreError,
    Unaudited,
    UnfitStore,
    UnknownRun,
    UnknownSchedule,
    UnknownStep,
    UsageError,
    said,
)
from millstream_gateway.refusals import Refused

MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, kw_only=True, frozen=True):
    """What went wrong, for programs (``type``) and for people (``detail``)."""

    type: str
    title: str
    status: int
    detail: str


_AWAY = "the store does not answer just now; ask again"
_SEALED = "it is sealed, and the gateway cannot open it; the operators see why"
#: The first class that fits decides, so a special error stands above its parent. What the store
#: says of itself (addresses, settings, keys) is not for callers: the last column is said instead.
_KINDS: tuple[tuple[type[MillstreamError], HTTPStatus, str, str], ...] = (
    (UnknownRun, HTTPStatus.NOT_FOUND, "unknown-run", ""),
    (UnknownSchedule, HTTPStatus.NOT_FOUND, "unknown-schedule", ""),
    (UnknownStep, HTTPStatus.NOT_FOUND, "unknown-step", ""),
    (IdConflict, HTTPStatus.CONFLICT, "id-conflict", ""),
    (RunEnded, HTTPStatus.CONFLICT, "run-ended", ""),
    (SignalsFull, HTTPStatus.CONFLICT, "signals-full", ""),
    (ScheduleConflict, HTTPStatus.CONFLICT, "schedule-conflict", ""),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", ""),
    (UnfitStore, HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", _AWAY),
    (SealingError, HTTPStatus.INTERNAL_SERVER_ERROR, "sealed", _SEALED),
    (UsageError, HTTPStatus.BAD_REQUEST, "bad-request", ""),
    (QueueFull, HTTPStatus.TOO_MANY_REQUESTS, "queue-full", ""),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", _AWAY),
    # It was done. No status says that it was and that something is wrong: the text does.
    (Unaudited, HTTPStatus.INTERNAL_SERVER_ERROR, "unaudited", ""),
)
_BUG = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "this should not happen; see the log")


def answer_of(error: Exception) -> web.Response:
    """Return what is answered to a request that raised this."""
    status, kind, detail = _told(error)
    problem = Problem(
        type=f"urn:millstream:{kind}", title=status.phrase, status=status, detail=detail
    )
    answer = web.Response(
        body=msgspec.json.encode(problem),
        status=status,
        headers=_headers(error, status),
        content_type=MEDIA_TYPE,
    )
    if isinstance(error, Refused) and error.closes:
        answer.force_close()
    return answer


def _told(error: Exception) -> tuple[HTTPStatus, str, str]:
    if isinstance(error, Refused):
        return error.status, error.kind, said(error)
    for kind, status, name, instead in _KINDS:
        if isinstance(error, kind):
            return status, name, instead or said(error)
    return _BUG


def _headers(error: Exception, status: HTTPStatus) -> Mapping[str, str]:
    if isinstance(error, Refused):
        return error.headers
    later = status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
    return {"Retry-After": "1"} if later else {}
