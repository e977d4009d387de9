"""What anybody may ask: whether the process is well."""

from __future__ import annotations

from collections.abc import Callable

from millstream.telemetry.health import Health, Verdict
from millstream_gateway.calls import Call, Reply
from millstream_gateway.rest.shapes import HealthView
from millstream_gateway.routes import Answer, Handler, Route


def routes(health: Health) -> list[Route]:
    """Return the routes that are open to everybody."""
    asked = {"/health": health.live, "/ready": health.ready, "/startup": health.started}
    return [
        Route(
            method="GET",
            path=path,
            name=f"probe{path[1:].capitalize()}",
            summary=f"Whether the process is {_MEANINGS[path]}",
            tag="health",
            handler=_asking(ask),
            needs=None,
            answers={200: Answer("It is.", HealthView), 503: Answer("It is not.", HealthView)},
        )
        for path, ask in asked.items()
    ]


_MEANINGS = {"/health": "alive", "/ready": "ready for requests", "/startup": "started"}


def _asking(ask: Callable[[], Verdict]) -> Handler:
    async def answer(_: Call) -> Reply:
        verdict = ask()
        if verdict.ok:
            return Reply(value=HealthView(status="ok"), status=200)
        return Reply(value=HealthView(status="unavailable", reason=_reason(verdict)), status=503)

    return answer


def _reason(verdict: Verdict) -> str:
    """Say what is wrong, and not how: that may name the store's address, and anybody may ask."""
    wrong = ", ".join(name for name, fault in verdict.checks.items() if fault is not None)
    return f"{wrong}: the log says more"
