"""Opens tracing where a collector is named; who traces nothing imports nothing for it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, TypeAlias

from millstream.errors import ConfigError, MissingExtra
from millstream.events import Emit

if TYPE_CHECKING:
    from millstream.telemetry.tracing import Tracing as _Tracing

Tracing: TypeAlias = "_Tracing"


def open_tracing(endpoint: str | None, service: str, version: str, told: Emit) -> Tracing | None:
    """Return what traces to a collector; None where there is none.

    ``told`` hears what became of the spans. Raises `ConfigError` and `MissingExtra`.
    """
    if not endpoint:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"otlp_endpoint: {endpoint!r} is no http address; give that of OTLP over HTTP, such as"
            " http://collector:4318"
        )
    try:
        from millstream.telemetry.spans import Spans, otlp_exporter  # noqa: PLC0415 - optional
        from millstream.telemetry.tracing import Tracing  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        raise MissingExtra("tracing", error.name or "opentelemetry") from error

    resource = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME", service),
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return Tracing(Spans(otlp_exporter(endpoint), resource=resource, told=told))
