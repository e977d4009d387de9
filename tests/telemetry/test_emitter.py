"""A subscriber with a bug costs nobody else an event, and no run its life."""

from __future__ import annotations

from millstream.events import Emit, Event, StepEnded
from millstream.telemetry.emitter import Emitter
from tests.telemetry.examples import EXAMPLES


def test_every_subscriber_gets_every_event_in_order() -> None:
    first: list[Event] = []
    second: list[Event] = []
    emit = Emitter(first.append, second.append)

    for event in EXAMPLES:
        emit(event)

    assert first == second == list(EXAMPLES)


def test_a_broken_subscriber_is_reported_once_and_the_others_go_on() -> None:
    """Logic calls emit in the middle of its work and expects no exception from it."""

    def broken(event: Event) -> None:
        raise RuntimeError(type(event).__name__)

    seen: list[Event] = []
    reports: list[Exception] = []
    emit = Emitter(broken, seen.append, broken=reports.append)

    for event in EXAMPLES:
        emit(event)

    assert seen == list(EXAMPLES)
    assert [str(report) for report in reports] == ["WorkerStarted"]


def test_a_subscriber_that_cannot_say_what_it_hears_is_reported() -> None:
    """The promise is that of the call, whatever is found out on the way."""

    class Lost:
        def hears(self, kind: type[Event]) -> Emit | None:
            raise LookupError(kind.__name__)

        def __call__(self, event: Event) -> None:
            raise AssertionError(event)

    seen: list[Event] = []
    reports: list[Exception] = []
    emit = Emitter(Lost(), seen.append, broken=reports.append)

    for event in EXAMPLES:
        emit(event)

    assert seen == list(EXAMPLES)
    assert [str(report) for report in reports] == ["WorkerStarted"]


def test_a_subscriber_is_asked_once_for_each_kind_what_hears_it() -> None:
    """What nobody has a use for costs a look, however often it is emitted."""

    class Choosy:
        def __init__(self) -> None:
            self.asked: list[type] = []
            self.heard: list[Event] = []

        def hears(self, kind: type[Event]) -> Emit | None:
            self.asked.append(kind)
            return self.heard.append if kind is StepEnded else None

        def __call__(self, event: Event) -> None:
            raise AssertionError(event)

    choosy, seen = Choosy(), list[Event]()
    emit = Emitter(choosy, seen.append)

    for event in [*EXAMPLES, *EXAMPLES]:
        emit(event)

    assert seen == [*EXAMPLES, *EXAMPLES]
    steps = [event for event in EXAMPLES if type(event) is StepEnded]
    assert choosy.heard == [*steps, *steps] != []
    assert choosy.asked == list(dict.fromkeys(map(type, EXAMPLES)))
