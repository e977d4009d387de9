"""Any server that speaks the OpenAI protocol: chat, completions and embeddings.

Promise: one request, one answer or one error that says whether trying again can help. What a
server asks us to wait is passed on. A stream is read to its end and is no answer before that. No
secret is in any error. It knows no limits and repeats nothing.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from millstream.errors import (
    ConfigError,
    InferenceError,
    InferenceFailed,
    InferenceOverloaded,
    InferenceRejected,
    InferenceUnavailable,
    MillstreamError,
)
from millstream_worker.inference.backends.streamed import OnText, streamed
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.tools.credentials import Redactor

TASKS = {"chat": "chat/completions", "completion": "completions", "embedding": "embeddings"}
SETTINGS = "task served_as stream timeout concurrency max_concurrency defaults"

#: An answer may be this long.
_MOST_BYTES = 64 * 1024 * 1024
#: Said by a server that may do it later.
_LATER = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_BUSY = {429, 503, 529}
_LONGEST_WAIT_S = 300.0


class OpenAIServer:
    """One model of one server."""

    def __init__(self, spec: ModelSpec) -> None:
        options = spec.options
        unknown = set(options) - set(SETTINGS.split())
        if unknown:
            raise _refused(spec, f"{min(unknown)!r} is no option of openai; there are {SETTINGS}")
        self._spec = spec
        self.task = str(options.get("task", "chat"))
        if self.task not in TASKS or not spec.url:
            raise _refused(spec, f"give url, and as task one of {', '.join(TASKS)}")
        self._stream = bool(options.get("stream", False)) and self.task != "embedding"
        self._served_as = str(options.get("served_as", spec.name))
        self._defaults = dict(options.get("defaults", {}))
        self._timeout = aiohttp.ClientTimeout(
            total=float(options.get("timeout", 600)), sock_connect=10
        )
        self._redactor = Redactor([spec.api_key] if spec.api_key else [])
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        inputs: Sequence[Any],
        options: Mapping[str, Any],
        idempotency_key: str = "",
        on_text: OnText | None = None,
    ) -> list[Any]:
        """Return one answer for each input. Several at once are for embeddings alone.

        A server that knows ``Idempotency-Key`` computes, and charges, a repetition once.
        ``on_text`` is told the text on the way, for which the server is asked to send a stream.
        """
        body = {"model": self._served_as, **self._defaults, **options, **self._input(inputs)}
        if self._stream or (on_text is not None and self.task != "embedding"):
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            return await self._post(body, len(inputs), idempotency_key, on_text)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise self._said(InferenceUnavailable, f"{type(error).__name__}: {error}") from None
        except MillstreamError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            what = f"its answer cannot be read ({type(error).__name__}: {error})"
            raise self._said(InferenceFailed, what) from None

    def _input(self, inputs: Sequence[Any]) -> dict[str, Any]:
        if self.task == "embedding":
            return {"input": list(inputs), "encoding_format": "float"}
        (one,) = inputs
        if self.task == "completion":
            return {"prompt": one}
        return {"messages": [{"role": "user", "content": one}] if isinstance(one, str) else one}

    async def _post(
        self, body: Mapping[str, Any], count: int, key: str, on_text: OnText | None
    ) -> list[Any]:
        url = f"{self._spec.url.rstrip('/')}/{TASKS[self.task]}"
        headers = self._headers() | ({"Idempotency-Key": key} if key else {})
        async with self._open().post(url, json=body, headers=headers) as response:
            if response.status != 200:
                raise await self._refusal(response)
            if "stream" in body and response.content_type == "text/event-stream":
                return [_plain(await streamed(response, self.task, _MOST_BYTES, on_text))]
            document = json.loads(await _bounded(response))
        if self.task == "embedding":
            return _vectors(document, count)
        return [_plain(_chosen(document, self.task))]

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Our own limit stands before it: a connector that queues would hide who waits.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=self._timeout
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        if self._spec.api_key is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._redactor.reveal(self._spec.api_key)}"}
        except ConfigError as error:
            raise InferenceRejected(str(error), cause="ConfigError") from None

    async def _refusal(self, response: aiohttp.ClientResponse) -> InferenceError:
        text = (await response.content.read(2000)).decode("utf-8", "replace")
        what = f"HTTP {response.status}: {text.strip()}"
        if response.status in _BUSY:
            return self._said(InferenceOverloaded, what, wait_s(response.headers))
        if response.status in _LATER:
            return self._said(InferenceUnavailable, what, wait_s(response.headers))
        return self._said(InferenceRejected, what)

    def _said(
        self, kind: type[InferenceError], what: str, retry_after: float | None = None
    ) -> InferenceError:
        text = self._redactor(f"model {self._spec.name!r} at {self._spec.url}: {what}")
        return kind(text[:2000], cause=kind.__name__, retry_after=retry_after)


def wait_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a server asks us to wait; None where it does not say."""
    said = headers.get("Retry-After", "").strip()
    if not said:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(_LONGEST_WAIT_S, max(0.0, seconds))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _chosen(document: Mapping[str, Any], task: str) -> dict[str, Any]:
    choice = document["choices"][0]
    if task == "completion":
        return {
            "text": choice["text"],
            "finish_reason": choice.get("finish_reason"),
            "usage": document.get("usage"),
        }
    message = choice["message"]
    answer = {
        "text": message.get("content") or "",
        "finish_reason": choice.get("finish_reason"),
        "usage": document.get("usage"),
    }
    if message.get("tool_calls"):
        answer["tool_calls"] = message["tool_calls"]
    return answer


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if value is not None}


def _vectors(document: Mapping[str, Any], count: int) -> list[Any]:
    rows = document["data"]
    if len(rows) != count:
        raise ValueError(f"{len(rows)} vectors for {count} inputs")
    vectors: list[Any] = [None] * count
    for position, row in enumerate(rows):
        vectors[int(row.get("index", position))] = row["embedding"]
    if any(vector is None for vector in vectors):
        raise ValueError("a vector is missing")
    return vectors


def _refused(spec: ModelSpec, what: str) -> InferenceRejected:
    return InferenceRejected(f"model {spec.name!r}: {what}", cause="ConfigError")
