"""Logs say what happened once, at the right volume, and cannot hurt the code that logs."""

from __future__ import annotations

import io
import json
import logging
import threading
from typing import Any

import pytest

from millstream.errors import ConfigError
from millstream.events import (
    CircuitMoved,
    Event,
    LaneCleaned,
    LaneSwept,
    LeaderChanged,
    LeaseRenewed,
    RunSettled,
    RunTaken,
    StepEnded,
    StoreFailed,
)
from millstream.telemetry.logs import LogFormat, LogSubscriber, RunLogger, make_logger
from millstream.telemetry.severities import severity
from tests.telemetry.examples import EXAMPLES


class Sink(io.StringIO):
    """A stream that can be read back as entries."""

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def subscriber(sink: Sink, level: str = "debug") -> LogSubscriber:
    return LogSubscriber(make_logger(log_format="json", level=level, stream=sink, wall=lambda: 0.0))


def run_logger(
    sink: Sink,
    *,
    replaying: bool = False,
    log_format: LogFormat = "json",
    branch: str = "",
    trace: str | None = None,
    step: str = "",
) -> RunLogger:
    return RunLogger(
        make_logger(log_format=log_format, level="debug", stream=sink, wall=lambda: 0.0),
        run_id="r1",
        workflow="research",
        queue="default",
        attempt=2,
        tenant="acme",
        trace=trace,
        replaying=lambda: replaying,
        branch=lambda: branch,
        step=lambda: step,
    )


def settled(state: str, error: str | None = None) -> RunSettled:
    return RunSettled(
        run_id="r1", workflow="w", queue="q", state=state, attempt=1, took_s=1.0, error=error
    )


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_is_one_line_with_all_its_facts(event: Event) -> None:
    sink = Sink()

    subscriber(sink)(event)

    (entry,) = sink.entries()
    assert list(entry)[:3] == ["timestamp", "level", "event"]
    assert entry["event"].replace("_", "") == type(event).__name__.lower()
    facts = {name for name in event.__struct_fields__ if getattr(event, name) is not None}
    renamed = {"worker" if name == "token" else name for name in facts}
    assert set(entry) == renamed | {"timestamp", "level", "event"}
    assert "***" not in sink.getvalue()


def test_an_entry_is_exactly_this() -> None:
    """Queries are written against these names."""
    sink = Sink()

    subscriber(sink)(settled("failed", error="ValueError: no"))

    assert sink.entries() == [
        {
            "timestamp": "1970-01-01T00:00:00.000+00:00",
            "level": "error",
            "event": "run_settled",
            "run_id": "r1",
            "workflow": "w",
            "queue": "q",
            "state": "failed",
            "attempt": 1,
            "took_s": 1.0,
            "error": "ValueError: no",
        }
    ]


def test_the_token_of_a_process_is_its_name_and_not_a_secret() -> None:
    sink = Sink()

    subscriber(sink)(LeaderChanged(token="s1", leading=True))

    assert sink.entries()[0]["worker"] == "s1"


STEP = StepEnded(
    run_id="r", workflow="w", key="k", kind="step", target="t", status="ok", attempts=1, took_s=0.1
)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (settled("failed"), logging.ERROR),
        (settled("scheduled", error="OSError: x"), logging.WARNING),
        (settled("completed"), logging.INFO),
        (settled("cancelled"), logging.INFO),
        (settled("queued"), logging.INFO),
        (settled("parked"), logging.DEBUG),
        (STEP, logging.DEBUG),
        (LeaseRenewed(lapsed=False, took_s=0.1), logging.DEBUG),
        (LeaseRenewed(lapsed=True, took_s=0.1), logging.WARNING),
        (LaneSwept(lane="q:0", promoted=3, reclaimed=0, poisoned=0), logging.DEBUG),
        (LaneSwept(lane="q:0", promoted=0, reclaimed=1, poisoned=0), logging.WARNING),
        (LaneSwept(lane="q:0", promoted=0, reclaimed=0, poisoned=1), logging.ERROR),
        (LaneCleaned(lane="q:0", dropped=3, restored=0), logging.DEBUG),
        (LaneCleaned(lane="q:0", dropped=0, restored=1), logging.WARNING),
        (CircuitMoved(server="s", state="open"), logging.WARNING),
        (CircuitMoved(server="s", state="closed"), logging.INFO),
        (StoreFailed(during="claim", error="x"), logging.WARNING),
    ],
)
def test_how_loud_an_event_is(event: Event, level: int) -> None:
    assert severity(event) == level


def test_a_run_that_resumes_is_told_and_a_fresh_one_is_not() -> None:
    """A resumption follows a crash, a park or a drain; fresh runs come by the ten thousand."""
    fresh, resumed = (
        RunTaken(
            run_id="r", workflow="w", queue="q", attempt=1, fence=1, records=records, waited_s=0.0
        )
        for records in (0, 3)
    )
    assert (severity(fresh), severity(resumed)) == (logging.DEBUG, logging.INFO)


def test_the_level_filters_events() -> None:
    sink = Sink()
    emit = subscriber(sink, level="WARNING")

    emit(settled("completed"))
    emit(settled("failed"))

    assert [entry["state"] for entry in sink.entries()] == ["failed"]


def test_secrets_of_errors_do_not_reach_the_log() -> None:
    sink = Sink()

    subscriber(sink)(StoreFailed(during="claim", error="redis://:hunter2@h:6379 refused"))

    assert sink.entries()[0]["error"] == "redis://***@h:6379 refused"


# -- ctx.log -----------------------------------------------------------------------------------


def test_an_authors_line_knows_its_run() -> None:
    sink = Sink()

    run_logger(sink, branch="gather/1").info("page read", size=7, password="hunter2")

    assert sink.entries() == [
        {
            "timestamp": "1970-01-01T00:00:00.000+00:00",
            "level": "info",
            "event": "page read",
            "run_id": "r1",
            "workflow": "research",
            "queue": "default",
            "attempt": 2,
            "tenant": "acme",
            "branch": "gather/1",
            "size": 7,
            "password": "***",
        }
    ]


def test_a_replay_is_silent_and_its_end_is_not() -> None:
    """What the first attempt has said is not said again by the second."""
    sink = Sink()
    replaying = True
    log = RunLogger(
        make_logger(log_format="json", level="debug", stream=sink),
        run_id="r1",
        workflow="w",
        queue="q",
        attempt=1,
        replaying=lambda: replaying,
    )

    for say in (log.debug, log.info, log.warning, log.error, log.exception):
        say("said before")
    log.bind(page=1).info("said before")
    replaying = False
    log.info("new")

    assert [entry["event"] for entry in sink.entries()] == ["new"]


def test_bound_fields_stay_with_their_logger() -> None:
    sink = Sink()
    log = run_logger(sink)

    log.bind(page=1).bind(part=2).info("a")
    log.info("b")

    assert [(e.get("page"), e.get("part")) for e in sink.entries()] == [(1, 2), (None, None)]


def test_an_author_cannot_take_a_name_of_ours() -> None:
    """A field called run_id must neither raise nor pretend to be another run."""
    sink = Sink()
    names = ("timestamp", "level", "event", "self", "method_name", "run_id", "branch", "message")

    run_logger(sink).info("hello", **dict.fromkeys(names, "x"))

    (entry,) = sink.entries()
    assert (entry["event"], entry["run_id"], entry["level"]) == ("hello", "r1", "info")
    assert entry["run_id_"] == entry["self_"] == entry["message"] == "x"


def test_exceptions_come_with_their_traceback_and_without_secrets() -> None:
    sink = Sink()

    try:
        int("redis://:hunter2@h")
    except ValueError:
        run_logger(sink).exception("no page")

    (entry,) = sink.entries()
    assert entry["level"] == "error"
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("redis://***@h'")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_field_can_make_logging_raise(log_format: LogFormat) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    sink = Sink()
    log = run_logger(sink, log_format=log_format)

    log.info("odd", a=Broken(), b=float("nan"), c="\ud800", d={(1, 2): {3}}, e=10**5000, f="%s")

    assert sink.getvalue().count("\n") == 1
    assert "odd" in sink.getvalue()


def test_a_closed_stream_fails_no_run() -> None:
    sink = Sink()
    log = run_logger(sink)
    sink.close()

    log.info("nobody reads this")


def test_a_stream_that_hangs_holds_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that renews leases logs too, and must not hang with the loop's thread."""
    monkeypatch.setattr("millstream.telemetry.lines.Lines._PATIENCE_S", 0)
    hanging, released = threading.Event(), threading.Event()

    class Hanging(Sink):
        def write(self, line: str) -> int:
            hanging.set()
            released.wait()
            return super().write(line)

    sink = Hanging()
    log = run_logger(sink)
    other = threading.Thread(target=log.info, args=("first",))
    other.start()
    hanging.wait()

    log.info("given up")
    released.set()
    other.join()
    log.info("last")

    assert [entry["event"] for entry in sink.entries()] == ["first", "last"]


def test_on_a_terminal_no_value_forges_a_line_or_steers_the_screen() -> None:
    sink = Sink()

    run_logger(sink, log_format="console").info("a\nb", title="\x1b[2Jgone")

    assert sink.getvalue().count("\n") == 1
    assert "\x1b" not in sink.getvalue()
    assert "a\\nb" in sink.getvalue()
    assert "run_id=r1" in sink.getvalue()


def test_colours_are_for_terminals() -> None:
    class Terminal(Sink):
        def isatty(self) -> bool:
            return True

    sink = Terminal()

    run_logger(sink, log_format="console").info("hello")

    assert "\x1b[" in sink.getvalue()


def test_wrong_settings_say_what_is_right() -> None:
    with pytest.raises(ConfigError, match="use one of debug, info"):
        make_logger(log_format="json", level="loud")
    with pytest.raises(ConfigError, match="use json or console"):
        make_logger(log_format="xml", level="info")  # type: ignore[arg-type]  # the point


def test_two_loggers_do_not_disturb_each_other() -> None:
    """Nothing is configured globally, so a simulation can hold several processes in one."""
    one, two = Sink(), Sink()
    loud, quiet = subscriber(one), subscriber(two, level="error")

    loud(STEP)
    quiet(STEP)

    assert (len(one.entries()), len(two.entries())) == (1, 0)


# -- what lines are found by -------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_line_of_a_run_says_everything_it_can_be_found_by() -> None:
    """Run, workflow, attempt, tenant, trace, and the step that runs."""
    sink = Sink()
    run_logger(sink, trace=TRACE[3:35], branch="gather#0.1/", step="download#2").info("read")

    (entry,) = sink.entries()
    assert entry.items() >= {
        "run_id": "r1", "workflow": "research", "queue": "default", "attempt": 2,
        "tenant": "acme", "trace": TRACE[3:35], "branch": "gather#0.1/", "step": "download#2",
    }.items()  # fmt: skip


def test_an_author_cannot_take_the_place_of_what_a_line_is_found_by() -> None:
    sink = Sink()
    run_logger(sink, trace=TRACE[3:35], step="a#0").info("x", trace="mine", step="mine")

    (entry,) = sink.entries()
    assert (entry["trace"], entry["step"]) == (TRACE[3:35], "a#0")
    assert (entry["trace_"], entry["step_"]) == ("mine", "mine")


def test_the_line_of_an_event_names_the_trace_alone() -> None:
    """A trace is looked up by its id, not by a context."""
    sink = Sink()
    subscriber(sink)(
        StepEnded(
            run_id="r1", workflow="w", key="a#0", kind="step", target="a", status="ok",
            attempts=1, took_s=0.1, queue="q", attempt=3, tenant="acme", trace=TRACE,
        )
    )  # fmt: skip

    (entry,) = sink.entries()
    assert (entry["trace"], entry["attempt"], entry["tenant"]) == (TRACE[3:35], 3, "acme")
    assert (entry["queue"], entry["key"]) == ("q", "a#0")


def test_secrets_in_what_a_step_says_are_taken_out() -> None:
    sink = Sink()
    line = run_logger(sink, trace=TRACE[3:35], step="login#0")
    line.info("calling https://u:hunter2@h/", authorization="Bearer abcdefgh", api_key="k-123456")

    said = sink.getvalue()
    assert not any(secret in said for secret in ("hunter2", "abcdefgh", "k-123456"))


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_kind_is_left_out_only_where_nothing_of_it_is_written(event: Event, level: str) -> None:
    """What hears a kind of event writes what the subscriber itself would write."""
    asked, whole = Sink(), Sink()
    hear = subscriber(asked, level).hears(type(event))
    if hear is not None:
        hear(event)
    subscriber(whole, level)(event)
    assert asked.getvalue() == whole.getvalue()
