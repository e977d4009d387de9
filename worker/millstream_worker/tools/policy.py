"""May a call be sent again? The retry matrix, as code.

Promise: a call that may have run is repeated only where somebody who is trusted said that this
does no harm. Pure: it knows errors and effects, not servers, clocks or attempts.

"Repeatable" is a tool whose effect is read-only, idempotent or keyed.

| what happened                              | ran?    | error             | repeatable | unsafe |
|--------------------------------------------|---------|-------------------|------------|--------|
| gate, DNS, refused, TLS, circuit open      | no      | `ToolNotSent`     | again      | again  |
| 429; 503 with Retry-After (then, later)    | no      | `ToolNotSent`     | again      | again  |
| 500, 502, 503, 504, 408                    | unknown | `ToolInterrupted` | same key   | no     |
| reset after sending, cut, timeout, exit    | unknown | `ToolInterrupted` | same key   | no     |
| -32603, unlisted codes, answer is no JSON  | unknown | `ToolInterrupted` | same key   | no     |
| -32600 -32601 -32602 -32700                | no      | `ToolRejected`    | never      | never  |
| -32020 -32021 -32022 -32042                | no      | `ToolRejected`    | never      | never  |
| 3xx, 401, 403, other 4xx; bad arguments    | no      | `ToolRejected`    | never      | never  |
| an answer larger than the limit            | yes     | `ToolRejected`    | never      | never  |
| `isError: true`                            | yes     | none: a result    | never      | never  |

"No" becomes `OutcomeUnknown` in the workflow. Two failures are mended inside one attempt, once,
because the server did not execute the request: -32020 (list the tools anew) and 404 with a
session (initialise anew).

Unsafe becomes repeatable where the configuration says `"onUnknown": "retry"`. This module names the
error; `millstream_worker.toolsteps` acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.errors import ToolError, ToolInterrupted, ToolNotSent, ToolRejected
from millstream.model.tool import Effect

HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022

#: Parse error, invalid request, unknown method, invalid parameters; headers that still do not
#: match, a capability we lack, a version the server lacks, a page somebody would have to open.
FINAL_CODES = frozenset(
    {-32700, -32600, -32601, -32602, HEADER_MISMATCH, -32021, UNSUPPORTED_VERSION, -32042}
)


def error_of_code(code: int) -> type[ToolError]:
    """Return what a JSON-RPC error code means for the call."""
    return ToolRejected if code in FINAL_CODES else ToolInterrupted


def error_of_status(status: int, retry_after: float | None) -> type[ToolError]:
    """Return what an HTTP status other than 200 means for the call."""
    if status == 429 or (status == 503 and retry_after is not None):
        return ToolNotSent
    if status >= 500 or status == 408:
        return ToolInterrupted
    if 200 <= status < 300:
        # Accepted, and no answer will follow.
        return ToolInterrupted
    return ToolRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a server says of its tool. Hints of an untrusted peer."""

    read_only: bool = False
    idempotent: bool = False


def effect_of(declared: Effect | None, hints: Hints, *, trusted: bool) -> Effect:
    """Return what repeating a call would do: our word first, the server's only where trusted."""
    if declared is not None:
        return declared
    if trusted and hints.read_only:
        return Effect.READ_ONLY
    if trusted and hints.idempotent:
        return Effect.IDEMPOTENT
    return Effect.UNSAFE


def needs_intent(declared: Effect | None, hints: Hints) -> bool:
    """Whether a call records its intent before it is sent.

    Here a hint is enough: a tool that lies about being read-only loses the record of an intent,
    and its calls are still not repeated, because `effect_of` did not believe it either.
    """
    if declared is not None:
        return declared not in {Effect.READ_ONLY, Effect.IDEMPOTENT}
    return not (hints.read_only or hints.idempotent)
