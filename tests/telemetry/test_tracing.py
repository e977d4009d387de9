"""Traces: spans follow from events, hang together across processes, and cost no run anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import closing, suppress

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from millstream.events import (
    BatchRan,
    Event,
    InferenceEnded,
    RunLost,
    RunSettled,
    RunTaken,
    SpansLeft,
    StepEnded,
    StepRetried,
    ToolCalled,
)
from millstream.model.run import Delivery
from millstream.model.trace import parsed, root_of
from millstream.telemetry import spans
from millstream.telemetry.opening import open_tracing
from millstream.telemetry.spans import Spans
from millstream.telemetry.tracing import Tracing
from tests.telemetry.collector import Collector, Seen, collecting
from tests.telemetry.examples import EXAMPLES

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def delivery(fence: int = 1, trace: str | None = CALLER) -> Delivery:
    return Delivery(
        "r1", fence, "normal", "1-0", "research", None, b"{}", 1, 0, 0, 0.0, None, None, 7.5, 0,
        trace=trace,
    )  # fmt: skip


def opened(collector: Collector, told: list[Event] | None = None) -> Tracing:
    heard = [] if told is None else told
    tracing = open_tracing(collector.url, "millstream-worker", "1.2", heard.append)
    assert tracing is not None
    return tracing


def taken(tracing: Tracing, fence: int = 1, trace: str | None = CALLER) -> RunTaken:
    """Take a run as a worker does."""
    place = tracing.place_of("q", delivery(fence, trace))
    event = RunTaken(
        run_id="r1",
        workflow="research",
        queue="q",
        attempt=1,
        fence=fence,
        records=0,
        waited_s=0.25,
        tenant="acme",
        trace=place.trace,
        parent=place.parent,
    )
    tracing(event)
    return event


def stepped(tracing: Tracing, take: RunTaken, key: str, status: str = "ok") -> None:
    tracing(
        StepEnded(
            run_id="r1",
            workflow="research",
            key=key,
            kind="step",
            target=key.partition("#")[0],
            status=status,
            attempts=1,
            took_s=0.5,
            queue="q",
            attempt=1,
            trace=take.trace,
        )
    )


def settled(tracing: Tracing, take: RunTaken, state: str, error: str | None = None) -> None:
    tracing(
        RunSettled(
            run_id="r1",
            workflow="research",
            queue="q",
            state=state,
            attempt=1,
            took_s=1.0,
            error=error,
            trace=take.trace,
        )
    )


def named(found: Sequence[Seen], name: str) -> Seen:
    (span,) = [span for span in found if span.name == name]
    return span


def test_a_run_is_one_tree_below_who_enqueued_it() -> None:
    with collecting() as collector:
        tracing = opened(collector)
        with tracing.enqueuing("research", "q", CALLER) as context:
            pass
        take = taken(tracing, trace=context)
        stepped(tracing, take, "download#0")
        step = parsed(take.trace).under("step", "ask#0")  # type: ignore[union-attr]  # it is one
        call = step.under("call", "1")
        tracing(
            ToolCalled(
                server="time",
                tool="now",
                status="ok",
                took_s=0.1,
                trace=str(call),
                parent=str(step),
            )
        )
        stepped(tracing, take, "ask#0")
        settled(tracing, take, "completed")
        tracing.close()

        found = collector.spans
        enqueue, first = named(found, "enqueue research"), named(found, "take research")
        assert {span.trace for span in found} == {CALLER[3:35]}
        assert enqueue.parent == CALLER[36:52]
        assert (first.parent, first.links) == (enqueue.id, (enqueue.id,))
        assert first.ended - first.began == 250_000_000
        for name in ("step download", "step ask", "run research"):
            assert named(found, name).parent == first.id
        assert named(found, "call time/now").parent == named(found, "step ask").id
        assert named(found, "call time/now").id == call.span_id
        assert first.attributes["millstream.tenant"] == "acme"
        assert {span.status for span in found} == {0}


def test_two_workers_write_the_same_tree_without_speaking() -> None:
    """After a crash nobody is left to ask which spans were open."""
    with collecting() as collector:
        first, second = opened(collector), opened(collector)
        before = taken(first, fence=1)
        stepped(first, before, "a#0")
        after = taken(second, fence=2)
        stepped(second, after, "b#0")
        settled(second, after, "completed")
        first.close()
        second.close()

        found = collector.spans
        takes = [span for span in found if span.name == "take research"]
        assert len({span.id for span in takes}) == 2
        assert {span.parent for span in takes} == {CALLER[36:52]}
        assert named(found, "step a").parent != named(found, "step b").parent
        assert {span.trace for span in found} == {CALLER[3:35]}


def test_a_run_that_nobody_traced_gets_the_same_trace_from_every_worker() -> None:
    with collecting() as collector:
        first, second = opened(collector), opened(collector)
        taken(first, fence=1, trace=None)
        taken(second, fence=2, trace=None)
        first.close()
        second.close()

        one, two = collector.spans
        root, later = (one, two) if not one.parent else (two, one)
        assert one.trace == two.trace
        assert (root.parent, later.parent) == ("", root.id)


def test_what_failed_is_an_error_and_says_why_without_secrets() -> None:
    with collecting() as collector:
        tracing = opened(collector)
        take = taken(tracing)
        stepped(tracing, take, "a#0", status="failed")
        tracing(
            StepRetried(
                run_id="r1", key="b#0", attempt=1, pause_s=1.0,
                error="OSError: redis://u:hunter2@h is away", trace=take.trace,
            )
        )  # fmt: skip
        settled(tracing, take, "failed", "ValueError: no")
        tracing(RunLost(run_id="r2", workflow="w", queue="q", fence=3, trace=take.trace))
        tracing(
            InferenceEnded(
                model="m", outcome="expired", items=1, waited_s=0, took_s=1,
                trace=str(root_of("x")), parent=take.trace,
            )
        )  # fmt: skip
        tracing.close()

        states = {span.name: span.status for span in collector.spans}
        assert states == {
            "take research": 0, "step a": 2, "retry b#0": 2, "run research": 2, "run w": 2,
            "infer m": 2,
        }  # fmt: skip


def test_half_a_character_costs_no_span() -> None:
    """Names of files bring them, and what leaves together is encoded together."""
    told: list[Event] = []
    with collecting() as collector:
        tracing = opened(collector, told)
        take = taken(tracing)
        stepped(tracing, take, "open#0")
        settled(tracing, take, "failed", "FileNotFoundError: 'caf\udce9'")
        tracing.close()

        assert {span.name for span in collector.spans} == {
            "take research", "step open", "run research"
        }  # fmt: skip
    assert told == [SpansLeft(outcome="exported", spans=3)]


def test_names_and_facts_leave_without_secrets() -> None:
    """An address as the key of a step is in the log without its password, and no less here."""
    with collecting() as collector:
        tracing = opened(collector)
        take = taken(tracing)
        stepped(tracing, take, "https://u:hunter2@host/x?token=hunter2#0")
        tracing(
            StepRetried(
                run_id="r1", key="https://u:hunter2@host/x#0", attempt=1, pause_s=1.0, error="no",
                trace=take.trace,
            )
        )  # fmt: skip
        tracing.close()

        assert len(collector.spans) == 3
        assert "hunter2" not in str(collector.spans)


def test_a_batch_is_linked_to_every_call_that_it_was_computed_for() -> None:
    with collecting() as collector:
        tracing = opened(collector)
        calls = [root_of("a"), root_of("b"), root_of("c")._replace(sampled=False)]
        tracing(
            BatchRan(
                model="m", device="cpu", reason="full", items=3, tokens=9, computed=9, took_s=0.1,
                waited_s=0.0, predicted=1, traces=tuple(map(str, calls)),
            )
        )  # fmt: skip
        tracing.close()

        (batch,) = collector.spans
        assert batch.parent == calls[0].span_id
        assert batch.links == (calls[0].span_id, calls[1].span_id)


def test_what_the_caller_does_not_record_is_recorded_nowhere() -> None:
    with collecting() as collector:
        tracing = opened(collector)
        quiet = f"{CALLER[:-2]}00"
        take = taken(tracing, trace=quiet)
        stepped(tracing, take, "a#0")
        with tracing.enqueuing("research", "q", quiet) as context:
            assert context == ""
        tracing.close()

        assert (take.trace or "")[-2:] == "00"
        assert collector.requests == 0


def test_a_share_of_the_traces_is_chosen_alike_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a tree is worth less than none."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    with collecting() as collector:
        one, two = opened(collector), opened(collector)
        runs = [delivery(trace=None)._replace(run_id=f"r{n}") for n in range(200)]
        first = [one.place_of("q", run).trace for run in runs]

        assert first == [two.place_of("q", run).trace for run in runs]
        assert 0 < sum(trace.endswith("01") for trace in first) < 200
        one.close()
        two.close()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_of_what_is_not_traced_is_no_span(event: Event) -> None:
    with collecting() as collector:
        tracing = opened(collector)
        tracing(event)
        tracing.close()
        assert collector.requests == 0


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", CALLER.upper(), CALLER[:-1], f"ff{CALLER[2:]}", f"00-{'0' * 32}{CALLER[35:]}",
     f"{CALLER[:36]}{'0' * 16}-01"],
)  # fmt: skip
def test_a_context_that_says_nothing_is_none(text: str) -> None:
    assert parsed(text) is None


def test_a_context_of_a_later_version_is_understood() -> None:
    assert str(parsed(f"01{CALLER[2:]}-more")) == CALLER


# -- export ------------------------------------------------------------------------------------


def test_a_collector_that_refuses_is_counted_and_raises_nothing() -> None:
    told: list[Event] = []
    with collecting() as collector:
        collector.status = 400
        tracing = opened(collector, told)
        taken(tracing)
        tracing.close()

    assert told == [SpansLeft(outcome="failed", spans=1)]


@pytest.mark.parametrize(
    "way", ["", "Transfer-Encoding: chunked\r\n", "Content-Length: 9999999999\r\n"]
)
def test_an_answer_without_end_is_not_read(way: str) -> None:
    """What is no collector may answer with all that it has, and it would stay in memory."""
    told: list[Event] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        answering = threading.Thread(target=_answer_without_end, args=(listener, way), daemon=True)
        answering.start()
        tracing = open_tracing(
            f"http://127.0.0.1:{listener.getsockname()[1]}", "w", "1", told.append
        )
        assert tracing is not None
        taken(tracing)
        tracing.close()
        answering.join(20)

    assert told == [SpansLeft(outcome="exported", spans=1)]


def _answer_without_end(listener: socket.socket, way: str) -> None:
    connection, _ = listener.accept()
    with closing(connection), suppress(OSError):
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{way}\r\n".encode())
        while True:
            connection.sendall(b"ffff\r\n".ljust(65543, b"x"))


class Stuck(SpanExporter):
    """A collector that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.let_go.wait(30)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.let_go.set()


def test_a_collector_that_hangs_costs_spans_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing never waits: what finds no room is counted, and leaving does not wait for it."""
    monkeypatch.setattr(spans, "WAITING", 20)
    monkeypatch.setattr(spans, "BATCH", 5)
    monkeypatch.setattr(spans, "CLOSE_S", 0.05)
    told: list[Event] = []
    stuck = Stuck()
    tracing = Tracing(
        Spans(stuck, resource={"service.name": "t", "service.version": "1"}, told=told.append)
    )
    for fence in range(1, 6):
        taken(tracing, fence)
    assert stuck.entered.wait(10)
    for fence in range(6, 31):
        taken(tracing, fence)

    tracing.close()
    assert not stuck.let_go.is_set()
    # Told while it hangs: it may do so until this process ends.
    assert told == [SpansLeft(outcome="dropped", spans=5)] * 2

    stuck.let_go.set()
    deadline = threading.Event()
    for _ in range(500):
        if sum(event.spans for event in told if isinstance(event, SpansLeft)) == 30:
            break
        deadline.wait(0.02)
    counts = {"exported": 0, "dropped": 0, "failed": 0}
    for event in told:
        assert isinstance(event, SpansLeft)
        counts[event.outcome] += event.spans
    assert counts == {"exported": 20, "dropped": 10, "failed": 0}


def test_nothing_is_opened_where_no_collector_is_named() -> None:
    assert open_tracing(None, "s", "1", lambda _: None) is None
