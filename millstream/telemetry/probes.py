"""The HTTP that probes and Prometheus read: ``/health``, ``/ready``, ``/startup``, ``/metrics``.

Promises: it answers from threads of its own, so also while the event loop is blocked; a slow or
hostile client costs one of a bounded number of threads for a bounded time, and whoever opens many
connections is in nobody's way but its own; leaving the block leaves no thread and no socket behind.
It does not know what makes a process healthy, and it writes no log: a probe every second is no
news.
"""

from __future__ import annotations

import errno
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry

from millstream.errors import ConfigError
from millstream.model.crowd import gives_way
from millstream.telemetry.answers import Answer, Metrics, Route, as_json, probe, refusal
from millstream.telemetry.health import Health

_REQUEST_BYTES = 16 * 1024
_SILENCE_S = 5.0  # a client may be silent for so long
_WHOLE_S = 15.0  # and a conversation may take so long
_CONNECTIONS = 64
_POLL_S = 0.1
_METRICS_FLAG = "--metrics"


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation: over what, since when, and with which machine."""

    connection: socket.socket
    began: float
    address: str


class Probes:
    """Serves probes on ``http_port`` and metrics on ``metrics_port`` while the block is open.

    Port 0 picks a free one, None switches that side off, and two equal ports are one server.
    After entering, ``http_port`` and ``metrics_port`` are the real ones. ``http_flag`` is what
    the process calls the first, for whoever has to choose another.
    """

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        *,
        http_port: int | None = 8080,
        metrics_port: int | None = 9090,
        host: str = "0.0.0.0",  # noqa: S104 - kubelet and Prometheus call from outside the pod
        http_flag: str = "--http",
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self.http_port = http_port
        self.metrics_port = metrics_port
        self._host = host
        self._http_flag = http_flag
        self._mono = mono
        self._asked = {
            "/health": probe(health.live),
            "/ready": probe(health.ready),
            "/startup": probe(health.started),
        }
        self._measured = {"/metrics": Metrics(registry)}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Listen. A port that cannot be had is a `ConfigError`."""
        with ExitStack() as opened:
            if self.http_port and self.http_port == self.metrics_port:
                self._listen(
                    opened, self._http_flag, self.http_port, {**self._asked, **self._measured}
                )
            else:
                self.http_port = self._listen(opened, self._http_flag, self.http_port, self._asked)
                self.metrics_port = self._listen(
                    opened, _METRICS_FLAG, self.metrics_port, self._measured
                )
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening, cut what is open, and wait for the threads."""
        self._open.close()

    def _listen(
        self, opened: ExitStack, flag: str, port: int | None, routes: Mapping[str, Route]
    ) -> int | None:
        if port is None:
            return None
        try:
            server = _Server(self._host, port, routes, self._mono)
        except (OSError, OverflowError) as error:
            remedy = self._remedy(flag, error)
            raise ConfigError(f"cannot listen on {self._host}:{port}: {remedy}") from error

        return opened.enter_context(_serving(server))

    def _remedy(self, flag: str, error: OSError | OverflowError) -> str:
        if not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
            return f"{error}; choose another port with {flag} (0 picks a free one)"

        flags = [flag]
        # Whoever has the one port often has the other: both are told of at once.
        if flag == self._http_flag and _is_taken(self._host, self.metrics_port):
            flags.append(_METRICS_FLAG)
        others = " ".join(f"{each} 0" for each in flags)
        return (
            "the port is taken, perhaps by a worker or a gateway on this machine; start this one"
            f" with {others} (0 picks a free port, -1 opens none)"
        )


def _is_taken(host: str, port: int | None) -> bool:
    if not port:
        return False
    try:
        socket.create_server((host, port), family=_family(host)).close()
    except OSError:
        return True

    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@contextmanager
def _serving(server: _Server) -> Iterator[int]:
    with server:  # closes the socket and every conversation on the way out
        thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_S,), name="millstream-probes", daemon=True
        )
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """One listening socket, and one thread a conversation, so many and for so long at most."""

    request_queue_size = _CONNECTIONS

    def __init__(
        self, host: str, port: int, routes: Mapping[str, Route], mono: Callable[[], float]
    ) -> None:
        self.address_family = _family(host)
        self.routes = routes
        self._mono = mono
        self._lock = threading.Lock()
        #: Oldest first.
        self._talks: dict[threading.Thread, _Talk] = {}
        #: Cut, and about to end.
        self._ending: set[threading.Thread] = set()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name that can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # typed for Unix sockets too

    def process_request(self, request: Any, client_address: Any) -> None:
        """Talk to a client in a thread; an old conversation gives way when there are many."""
        thread = threading.Thread(
            target=self._talk, args=(request, client_address), name="millstream-probe", daemon=True
        )
        with self._lock:
            full = len(self._talks) >= _CONNECTIONS
            if full and len(self._ending) >= _CONNECTIONS:
                # Those that were cut are still at work: what came last is too much.
                self.shutdown_request(request)
                return
            if full:
                old = gives_way({x: talk.address for x, talk in self._talks.items()})
                _cut(self._talks.pop(old).connection)
                self._ending.add(old)
            self._talks[thread] = _Talk(request, self._mono(), client_address[0])
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had; the caller closes the connection
            self._ended(thread)
            raise

    def service_actions(self) -> None:
        """Cut conversations that take too long. A time-out per read alone would not."""
        now = self._mono()
        with self._lock:
            for talk in self._talks.values():
                if now - talk.began > _WHOLE_S:
                    _cut(talk.connection)

    def server_close(self) -> None:
        """Close the socket, cut every conversation and wait for its thread."""
        super().server_close()
        with self._lock:
            threads = [*self._talks, *self._ending]
            for talk in self._talks.values():
                _cut(talk.connection)
        for thread in threads:
            thread.join(_SILENCE_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are their own affair, and the rest was answered."""

    def _talk(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            self._ended(threading.current_thread())

    def _ended(self, thread: threading.Thread) -> None:
        with self._lock:
            self._talks.pop(thread, None)
            self._ending.discard(thread)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may have ended by itself
        connection.shutdown(socket.SHUT_RDWR)


class _Bounded(io.BufferedIOBase):
    """The lines of a request, up to a number of bytes."""

    def __init__(self, inner: io.BufferedIOBase) -> None:
        self._inner = inner
        self.left = _REQUEST_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line, or nothing once the bytes are used up."""
        wanted = self.left if size is None or size < 0 else min(size, self.left)
        line = self._inner.readline(wanted)
        self.left -= len(line)
        return line

    def close(self) -> None:
        """Close what is behind it."""
        self._inner.close()
        super().close()


class _Handler(BaseHTTPRequestHandler):
    """One request: its route, its answer, and the connection is closed."""

    server: _Server
    timeout = _SILENCE_S
    #: What is no HTTP at all is still refused with a status line.
    default_request_version = "HTTP/1.0"

    def setup(self) -> None:
        super().setup()
        self._bounded = _Bounded(self.rfile)
        self.rfile = self._bounded

    def version_string(self) -> str:
        return "millstream"

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def send_error(self, code: int, *_: str | None, **__: str | None) -> None:
        """Refuse in JSON, without repeating to the client what it sent."""
        status = HTTPStatus(code)
        self._send(as_json(status, "refused", status.phrase))

    def _answer(self) -> None:
        self._send(self._chosen())

    def _chosen(self) -> Answer:
        if self._bounded.left == 0:
            return refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            return refusal(HTTPStatus.NOT_FOUND)
        if self.command not in ("GET", "HEAD"):
            return refusal(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return route(", ".join(self.headers.get_all("Accept", [])))
        except Exception:  # noqa: BLE001 - a broken gauge must not look like a dead process
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = _answer  # noqa: N815 - http.server looks methods up by these names
    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815 - and by these
