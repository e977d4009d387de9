"""Probes answer whatever the event loop and other clients do, and leave nothing behind."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from email.message import Message
from typing import Any

import anyio
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millstream.errors import ConfigError
from millstream.events import LeaseRenewed
from millstream.telemetry import probes as module
from millstream.telemetry.health import Health
from millstream.telemetry.metrics import MetricsSubscriber, Registry
from millstream.telemetry.probes import Probes
from tests.telemetry.bench import Clock

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Message
    body: bytes

    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


def ask(port: int | None, path: str, method: str = "GET", **headers: str) -> Reply:
    assert port is not None
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())


def say(port: int | None, data: bytes) -> socket.socket:
    assert port is not None
    connection = socket.create_connection((LOOPBACK, port), timeout=10)
    connection.sendall(data)
    return connection


def heard(connection: socket.socket) -> bytes:
    """Everything until the other side closes; it may close hard."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(loop_s=60, claim_s=60, mono=clock)
    health.store_answered()
    health.claim_turned()
    return health


@pytest.fixture
def probes(health: Health, clock: Clock) -> Iterator[Probes]:
    registry = Registry()
    MetricsSubscriber(registry)(LeaseRenewed(lapsed=False, took_s=0.01))
    with Probes(health, registry, http_port=0, metrics_port=0, host=LOOPBACK, mono=clock) as it:
        yield it


@pytest.mark.parametrize("path", ["/health", "/ready", "/startup", "/health?verbose=1"])
def test_a_process_that_serves_is_green(probes: Probes, path: str) -> None:
    reply = ask(probes.http_port, path)

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    said = reply.json()
    assert (said["status"], said["reason"]) == ("ok", None)
    assert said["checks"]
    assert all(check == {"status": "pass"} for check in said["checks"].values())


def test_each_probe_has_its_own_verdict(probes: Probes, health: Health) -> None:
    health.store_failed("cannot reach redis://:hunter2@redis")

    assert ask(probes.http_port, "/health").status == 200
    ready = ask(probes.http_port, "/ready")

    assert ready.status == 503
    said = ready.json()
    fault = "cannot reach redis://***@redis"
    assert (said["status"], said["reason"]) == ("unavailable", fault)
    assert said["checks"].pop("redis") == {"status": "fail", "reason": fault}
    assert {check["status"] for check in said["checks"].values()} == {"pass"}


def test_a_check_that_fails_is_named(probes: Probes, health: Health) -> None:
    """Whoever is woken by it reads what, and not only that."""
    health.checked("tools", "no MCP server answers (search)")
    health.checked("models", None)

    assert ask(probes.http_port, "/health").status == 200
    checks = ask(probes.http_port, "/ready").json()["checks"]
    assert checks["tools"] == {"status": "fail", "reason": "no MCP server answers (search)"}
    assert checks["models"] == {"status": "pass"}
    health.checked("tools", None)
    assert ask(probes.http_port, "/ready").status == 200


def test_before_the_first_claim_the_start_is_not_over(clock: Clock) -> None:
    health = Health(mono=clock)
    with Probes(health, Registry(), http_port=0, metrics_port=None, host=LOOPBACK) as probes:
        assert ask(probes.http_port, "/startup").status == 503
        health.claim_turned()
        assert ask(probes.http_port, "/startup").status == 200


@pytest.mark.anyio
async def test_a_blocked_event_loop_turns_health_red_and_still_answers(
    probes: Probes, health: Health, clock: Clock
) -> None:
    """Served by the loop itself, the probe would time out and say nothing of why."""
    health.loop_turned()
    clock.now += 61
    health.claim_turned()

    reply = ask(probes.http_port, "/health")  # blocks the loop: it can turn only afterwards

    assert reply.status == 503
    assert reply.json()["reason"] == "the event loop last turned 61 s ago"

    async with anyio.create_task_group() as group:
        group.start_soon(_turn, health)
    assert ask(probes.http_port, "/health").status == 200


async def _turn(health: Health) -> None:
    health.loop_turned()


# -- metrics -----------------------------------------------------------------------------------


def test_metrics_are_served_as_text_and_as_openmetrics(probes: Probes) -> None:
    text = ask(probes.metrics_port, "/metrics")
    openmetrics = ask(
        probes.metrics_port, "/metrics", Accept="application/openmetrics-text; version=1.0.0"
    )

    assert text.headers["Content-Type"].startswith("text/plain")
    assert b"millstream_lease_renewals_total 1.0" in text.body
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")


def test_the_two_sides_are_apart(probes: Probes) -> None:
    """Who may scrape is not who may probe, so each can have a network policy of its own."""
    assert probes.http_port != probes.metrics_port
    assert ask(probes.http_port, "/metrics").status == 404
    assert ask(probes.metrics_port, "/health").status == 404


def test_equal_ports_are_one_server(health: Health) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as free:
        port = free.getsockname()[1]

    with Probes(health, Registry(), http_port=port, metrics_port=port, host=LOOPBACK) as probes:
        assert probes.http_port == probes.metrics_port == port
        assert ask(port, "/health").status == 200
        assert ask(port, "/metrics").status == 200


def test_a_side_can_be_off(health: Health) -> None:
    with Probes(health, Registry(), http_port=None, metrics_port=None) as probes:
        assert probes.http_port is None
        assert probes.metrics_port is None


def test_a_broken_gauge_is_an_error_of_metrics_alone(health: Health) -> None:
    registry = Registry()
    MetricsSubscriber(registry)._series.follow("active_workflows", lambda: 1 / 0)

    with Probes(health, registry, http_port=0, metrics_port=0, host=LOOPBACK) as probes:
        assert ask(probes.metrics_port, "/metrics").status == 500
        assert ask(probes.http_port, "/health").status == 200


class Slow(Collector):
    """Takes its time to be read, and counts how often it is."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.count += 1
        self.begun.release()
        self.go_on.wait(20)
        yield GaugeMetricFamily("reads", "", value=self.count)

    def describe(self) -> list[Metric]:
        return []


@pytest.fixture
def slow(health: Health) -> Iterator[tuple[Slow, Probes]]:
    """Metrics that take their time, and who serves them."""
    collector, registry = Slow(), Registry()
    registry.register(collector)
    with Probes(health, registry, http_port=None, metrics_port=0, host=LOOPBACK) as probes:
        yield collector, probes
        collector.go_on.set()


def test_metrics_are_read_once_for_all_who_wait(slow: tuple[Slow, Probes]) -> None:
    """Side by side, a flood of scrapes would leave the event loop no processor."""
    collector, probes = slow
    with ExitStack() as stack:
        asked = [
            stack.enter_context(closing(say(probes.metrics_port, b"GET /metrics HTTP/1.0\r\n\r\n")))
            for _ in range(20)
        ]
        assert collector.begun.acquire(timeout=10)
        until_threads(20)
        collector.go_on.set()
        assert all(b"reads " in heard(each) for each in asked)

    # Once for the first, once for all who came meanwhile, and for who had not asked by then.
    read = collector.count
    assert 2 <= read < 10
    assert f"reads {read + 1}.0" in ask(probes.metrics_port, "/metrics").body.decode()


def until_threads(count: int) -> None:
    """Return once so many conversations are under way."""
    deadline = threading.Event()
    for _ in range(1000):
        if conversations() >= count:
            return
        deadline.wait(0.01)
    raise AssertionError(f"{conversations()} conversations")


def conversations() -> int:
    return sum(thread.name == "millstream-probe" for thread in threading.enumerate())


def test_those_that_were_cut_count_as_long_as_they_work(
    slow: tuple[Slow, Probes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be ended from outside: those that read metrics go on to their end."""
    monkeypatch.setattr(module, "_CONNECTIONS", 8)
    collector, probes = slow
    with ExitStack() as stack:
        flood = [
            stack.enter_context(closing(say(probes.metrics_port, b"GET /metrics HTTP/1.0\r\n\r\n")))
            for _ in range(3 * module._CONNECTIONS)
        ]
        assert heard(flood[-1]) == b""
        assert conversations() <= 2 * module._CONNECTIONS
        collector.go_on.set()


# -- clients of all kinds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/health/", 404),
        ("POST", "/nowhere", 404),
        ("POST", "/health", 405),
        ("DELETE", "/ready", 405),
        ("OPTIONS", "/health", 405),
        ("BREW", "/health", 501),
    ],
)
def test_what_is_not_served_is_refused(probes: Probes, method: str, path: str, status: int) -> None:
    reply = ask(probes.http_port, path, method)

    assert reply.status == status
    assert reply.json()["status"] == "refused"
    assert reply.headers["Allow"] == ("GET, HEAD" if status == 405 else None)


def test_head_has_the_status_and_no_body(probes: Probes, health: Health) -> None:
    health.draining()

    reply = ask(probes.http_port, "/ready", "HEAD")

    assert (reply.status, reply.body) == (503, b"")
    assert int(reply.headers["Content-Length"]) > 0


def test_a_slow_client_does_not_keep_others_waiting(probes: Probes) -> None:
    with ExitStack() as slow:
        for _ in range(10):
            slow.enter_context(closing(say(probes.http_port, b"GET /health HT")))

        assert ask(probes.http_port, "/health").status == 200


def test_a_client_that_takes_too_long_is_cut(probes: Probes, clock: Clock) -> None:
    """One byte every four seconds satisfies every time-out of a single read."""
    with closing(say(probes.http_port, b"GET /health HT")) as connection:
        assert ask(probes.http_port, "/health").status == 200  # so the first one is being served
        clock.now += 16

        assert heard(connection) == b""


def test_beyond_the_bound_the_oldest_client_gives_way(probes: Probes) -> None:
    """Else sixty-four silent clients would get the process killed by its own probe."""
    with ExitStack() as stack:
        slow = [
            stack.enter_context(closing(say(probes.http_port, b"GET /health HT")))
            for _ in range(module._CONNECTIONS)
        ]

        assert ask(probes.http_port, "/health").status == 200
        assert heard(slow[0]) == b""


def test_who_opens_many_connections_gives_way_to_who_opens_one(
    probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a flood from one machine has the process killed by the probe of another."""
    monkeypatch.setattr(module, "_CONNECTIONS", 8)
    assert probes.http_port is not None
    with ExitStack() as stack:
        one = stack.enter_context(closing(say(probes.http_port, b"GET /health HTTP/1.0\r\n")))
        assert ask(probes.http_port, "/health").status == 200  # so the first is being served
        for _ in range(2 * module._CONNECTIONS):
            flood = socket.create_connection(
                (LOOPBACK, probes.http_port), timeout=10, source_address=("127.0.0.2", 0)
            )
            stack.enter_context(closing(flood)).sendall(b"GET /health HT")
        assert ask(probes.http_port, "/health").status == 200
        one.sendall(b"\r\n")

        assert heard(one).startswith(b"HTTP/1.0 200 ")


def test_a_request_without_end_is_refused(probes: Probes) -> None:
    endless = b"GET /health HTTP/1.1\r\nX-Long: ".ljust(module._REQUEST_BYTES, b"x")

    with closing(say(probes.http_port, endless)) as connection:
        assert heard(connection).startswith(b"HTTP/1.0 431 ")

    assert ask(probes.http_port, "/health").status == 200


def test_what_is_not_http_is_refused_without_an_echo(probes: Probes) -> None:
    with closing(say(probes.http_port, b"GET <script> HTTP/1.1 x\r\n\r\n")) as connection:
        reply = heard(connection)

    assert reply.startswith(b"HTTP/1.0 400 ")
    assert b"script" not in reply


def test_requests_are_not_logged(probes: Probes, capfd: pytest.CaptureFixture[str]) -> None:
    """A probe a second is 86,400 lines a day that say nothing."""
    ask(probes.http_port, "/health")
    ask(probes.http_port, "/nowhere")
    say(probes.http_port, b"GET /hea").close()

    assert capfd.readouterr() == ("", "")


# -- the end -----------------------------------------------------------------------------------


def test_leaving_the_block_leaves_no_thread_and_no_socket(health: Health) -> None:
    before = set(threading.enumerate())
    with ExitStack() as stack:
        probes = Probes(health, Registry(), http_port=0, metrics_port=0, host=LOOPBACK)
        with probes:
            for _ in range(3):
                stack.enter_context(closing(say(probes.http_port, b"GET /health HT")))
            assert ask(probes.http_port, "/health").status == 200
            ask(probes.metrics_port, "/metrics")

        assert set(threading.enumerate()) == before

    for port in (probes.http_port, probes.metrics_port):
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/health")


def test_a_port_in_use_is_an_error_that_says_so_and_leaves_nothing(health: Health) -> None:
    before = set(threading.enumerate())
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        probes = Probes(health, Registry(), http_port=0, metrics_port=port, host=LOOPBACK)

        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"), probes:
            pass

    assert set(threading.enumerate()) == before


def test_a_port_in_use_is_named_by_the_flag_that_its_process_has_for_it(health: Health) -> None:
    """A gateway's `--http` is its API, which has to be where its callers look for it."""
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        probes = Probes(
            health, Registry(), http_port=port, metrics_port=0, host=LOOPBACK, http_flag="--probes"
        )

        with pytest.raises(ConfigError, match=r"start this one with --probes 0 \(0 picks"), probes:
            pass
