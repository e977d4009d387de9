"""JSON-RPC over HTTP, as bytes: what is sent, and what an answer or a refusal says.

Promise: bodies are bounded while they stream in, and whatever comes back becomes a result or a
`Fault`. It opens no connection and keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from millstream.model.limits import MIB
from millstream_worker.tools.exchanges import Response
from millstream_worker.tools.faults import Malformed, Refused, RpcError, TooLarge, Unfit

LARGEST_REQUEST = 1 * MIB

#: What an operator can do about a refusal.
_ADVICE = {
    300: "redirects are not followed; correct the url",
    401: "the credentials are missing or not valid; correct the headers",
    403: "the credentials do not allow it",
    404: "nothing is served there; correct the url",
    407: "a proxy wants credentials, which is not supported",
}

#: Enough for a JSON-RPC error; the rest of an error page is not read.
_LARGEST_REFUSAL = 64 * 1024


def _to_json(value: Any) -> Any:
    # What a workflow passes may be a model of pydantic, as everywhere else.
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"objects of type {type(value).__qualname__} have no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)
_UNWRITABLE = (TypeError, NotImplementedError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, encoded. The id is new for every request, also for a repeated one."""

    id: int
    method: str
    body: bytes


def encode(method: str, params: Mapping[str, Any] | None, *, id: int | None = None) -> bytes:
    """Return a request, or a notification where there is no id."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        message["id"] = id
    if params is not None:
        message["params"] = dict(params)
    return encode_message(message)


def encode_message(message: dict[str, Any]) -> bytes:
    """Return a message as bytes, or raise `Unfit` when it cannot be sent."""
    try:
        body = _ENCODER.encode(message)
    except _UNWRITABLE as error:
        raise Unfit(f"it cannot be written as JSON ({error})") from error
    if len(body) > LARGEST_REQUEST:
        raise Unfit(f"it is {len(body):,} bytes, the limit is {LARGEST_REQUEST:,}")
    return body


def plain(params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return parameters as plain JSON values, or raise `Unfit` when they have no such form."""
    try:
        found: Mapping[str, Any] | None = msgspec.to_builtins(params, enc_hook=_to_json)
    except _UNWRITABLE as error:
        raise Unfit(f"it cannot be written as JSON ({error})") from error
    return found


def decode(body: bytes) -> dict[str, Any]:
    """Return a message, or raise `Malformed`."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"its answer is not JSON ({error})") from error
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Malformed("its answer is not a JSON-RPC message")
    return message


def answers(message: Mapping[str, Any], request: Request) -> bool:
    """Whether a message is the answer to this request."""
    if "method" in message:
        return False
    # A request that was refused before its id was read is answered with the id null.
    return message.get("id") == request.id or (message.get("id") is None and "error" in message)


def settle(message: Mapping[str, Any], *, modern: bool) -> dict[str, Any]:
    """Return the result of an answer, or raise what it says."""
    error = message.get("error")
    if error is not None:
        raise _rpc_error(error)
    result = message.get("result")
    if not isinstance(result, dict):
        raise Malformed("its answer has neither a result nor an error")
    if modern:
        # Servers forget it, and the SDK would refuse an answer that is otherwise complete.
        result.setdefault("resultType", "complete")
    return result


async def read_bounded(response: Response, limit: int) -> bytes:
    """Return a body, or raise `TooLarge` as soon as it is."""
    if (response.content_length or 0) > limit:
        raise TooLarge(limit)
    content = response.content
    first = await content.readany()
    if content.at_eof() and len(first) <= limit:
        # Most answers come in one piece.
        return first

    body = bytearray(first)
    while len(body) <= limit:
        if content.at_eof():
            return bytes(body)
        body += await content.readany()
    raise TooLarge(limit)


async def refusal(response: Response) -> Refused | RpcError:
    """Return what a status other than 200 says: the JSON-RPC error in it, else the status."""
    retry_after = _retry_after(response.headers.get("Retry-After"))
    reason = _ADVICE.get(response.status // 100 * 100 if response.status < 400 else response.status)
    refused = Refused(response.status, reason or response.reason or "", retry_after=retry_after)
    if response.status in {401, 403, 407, 429, 503} or 300 <= response.status < 400:
        # Here the status decides, whatever the body repeats.
        return refused

    try:
        error = decode(await read_bounded(response, _LARGEST_REFUSAL)).get("error")
    except (Malformed, TooLarge, aiohttp.ClientError, OSError):
        return refused
    return _rpc_error(error) if isinstance(error, dict) else refused


def _rpc_error(error: Any) -> RpcError:
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        raise Malformed("its error has no code")
    return RpcError(error["code"], str(error.get("message", "")), error.get("data"))


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
