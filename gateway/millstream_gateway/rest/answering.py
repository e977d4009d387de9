"""What every route of the API may answer, beside what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from millstream_gateway.problems import MEDIA_TYPE, Problem
from millstream_gateway.routes import Answer

BASE = "/api/v1"
#: What reading a body adds.
BODY = (408, 413, 415)


def answers_of(*more: int, **found: Answer) -> Mapping[int, Answer]:
    """Return what a route answers: what it is asked for, and how it refuses."""
    refusals = {code: Answer(meaning, Problem, MEDIA_TYPE) for code, meaning in _REFUSALS.items()}
    wanted = {int(name.removeprefix("_")): answer for name, answer in found.items()}
    common = (400, 401, 403, 404, 429, 503)
    return wanted | {code: refusals[code] for code in (*common, *more)}


_REFUSALS = {
    400: "The request is not as described.",
    401: "Nobody was named, or nobody who is known.",
    403: "Who calls may not do this, or not in this queue.",
    404: "There is no such thing here, or none that the caller may see.",
    408: "The body did not arrive in time.",
    409: "It cannot be done as things stand.",
    413: "It is larger than is taken.",
    415: "The body is not JSON.",
    429: "More was asked for than one may; see Retry-After.",
    503: "The store does not answer just now; see Retry-After.",
}
