"""Count what a gateway tells of itself and of the requests it served.

Promise: a label is the template of a route, a status or a closed word: nothing that a caller sent
becomes the name of a series. How long a stream lasted says how long somebody listened, so it is
counted and not measured.
"""

from __future__ import annotations

from typing import assert_never

from millstream.events import GatewayDraining, GatewayStarted, OperatorActed, RequestServed
from millstream.telemetry.errortypes import error_type
from millstream.telemetry.series import Series


def gateway_event(
    series: Series, event: GatewayStarted | GatewayDraining | RequestServed | OperatorActed
) -> None:
    """Count an event of a gateway."""
    match event:
        case RequestServed():
            _request_served(series, event)
        case OperatorActed():
            series.count("millstream_operator_acts_total", event.action, event.outcome)
        case GatewayStarted():
            series.set("millstream_gateway_accepting", 1)
        case GatewayDraining():
            series.set("millstream_gateway_accepting", 0)
            series.set("millstream_gateway_draining", 1)
        case _ as never:
            assert_never(never)


def _request_served(series: Series, event: RequestServed) -> None:
    where = (event.method, event.endpoint)
    series.count("http_requests_total", *where, str(event.status))
    if not event.streamed:
        series.observe("http_request_duration_seconds", event.took_s, *where)
    if event.error is not None:
        series.count("errors_total", error_type(event.error))
