"""Count what a gateway tells of itself and of the requests it served.

Promise: a label is the template of a route, a status or a closed word: nothing that a caller sent
becomes the name of a series. How long a stream lasted says how long somebody listened, so it is
counted and not measured.
"""

from __future__ import annotations

from typing import assert_never

from millstream.events import GatewayDraining, GatewayStarted, OperatorActed, RequestServed
from millstream.telemetry.errortypes import error_type
from millstream.telemetry.series import Row, Series

_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# fmt: off
# ruff: noqa: E501 - a table, as in `metrics`
ROWS: tuple[Row, ...] = (
    Row(name="http_requests_total", kind="counter", help="Requests answered, by the template of their route.", labels=("method", "endpoint", "status_code")),
    Row(name="http_request_duration_seconds", kind="histogram", help="Duration of requests, but of streams.", labels=("method", "endpoint"), buckets=_REQUEST),
    Row(name="millstream_gateway_accepting", kind="gauge", help="1 while the gateway accepts requests."),
    Row(name="millstream_gateway_draining", kind="gauge", help="1 while the gateway finishes what is under way."),
    Row(name="millstream_operator_acts_total", kind="counter", help="Runs that somebody changed through the gateway, or tried to, by what was done.", labels=("action", "outcome")),
)
# fmt: on


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
