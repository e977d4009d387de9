"""A collector of traces: a real HTTP server that decodes the protobuf it is sent."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A span, as it came over the wire."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    #: 2 is an error.
    status: int
    began: int
    ended: int
    service: str
    #: Which process sent it.
    instance: str


@dataclass
class Collector:
    """What was received, and what is answered."""

    url: str
    status: int = 200
    requests: int = 0
    _spans: list[Seen] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def until(self, enough: Callable[[list[Seen]], Any], seconds: float = 20) -> list[Seen]:
        """Return the spans once there are enough of them."""
        deadline = time.monotonic() + seconds
        while not enough(spans := self.spans):
            assert time.monotonic() < deadline, sorted(span.name for span in spans)
            time.sleep(0.02)
        return spans

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self._spans += _spans(request)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.requests += 1
            if self.path != "/v1/traces":
                self.send_error(404)
                return
            if collector.status == 200:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collector.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for resource in request.resource_spans:
        where = {x.key: x.value.string_value for x in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=tuple(link.span_id.hex() for link in span.links),
                    attributes={x.key: _value(x.value) for x in span.attributes},
                    status=span.status.code,
                    began=span.start_time_unix_nano,
                    ended=span.end_time_unix_nano,
                    service=where["service.name"],
                    instance=where["service.instance.id"],
                )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
