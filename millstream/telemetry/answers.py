"""What probes and Prometheus are answered: the verdicts on a process, and its metrics.

Promise: whatever many ask for at once is worked out once. It knows no sockets, and not what makes a
process healthy.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from millstream.telemetry.health import Verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers, whole."""

    status: HTTPStatus
    content_type: str
    body: bytes


#: From the Accept header of a request to its answer.
Route = Callable[[str], Answer]


def probe(ask: Callable[[], Verdict]) -> Route:
    """Return the route to a verdict."""

    def answer(_accept: str) -> Answer:
        verdict = ask()
        checks = {name: _check(fault) for name, fault in verdict.checks.items()}
        if verdict.ok:
            return as_json(HTTPStatus.OK, "ok", None, checks=checks)
        return as_json(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", verdict.reason, checks=checks)

    return answer


class Metrics:
    """The route to a registry: one thread at a time reads it, for all who have asked until then.

    Sixty-four that read side by side would leave the loop a sixty-fifth of the interpreter.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._reading = threading.Lock()
        #: How often it was begun to be read, and what came of the last time.
        self._begun = 0
        self._answer = refusal(HTTPStatus.SERVICE_UNAVAILABLE)

    def __call__(self, accept: str) -> Answer:
        """Return what was read after it was asked for."""
        encode, content_type = choose_encoder(accept)
        begun_before = self._begun
        with self._reading:
            if self._begun == begun_before or self._answer.content_type != content_type:
                self._begun += 1
                # Stands when reading fails: nobody may be given what was read before.
                self._answer = refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
                body = encode(self._registry)
                self._answer = Answer(HTTPStatus.OK, content_type, body)
            return self._answer


def refusal(status: HTTPStatus) -> Answer:
    """Return a no that repeats nothing of the request."""
    return as_json(status, "refused", status.phrase)


def _check(fault: str | None) -> dict[str, str]:
    return {"status": "pass"} if fault is None else {"status": "fail", "reason": fault}


def as_json(status: HTTPStatus, word: str, reason: str | None, **more: Any) -> Answer:
    """Return an answer in one word, and why."""
    body = json.dumps({"status": word, "reason": reason, **more}).encode() + b"\n"
    return Answer(status, "application/json", body)
