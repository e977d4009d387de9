"""An outage of Redis is a few lines a minute, however often a process asks meanwhile."""

from __future__ import annotations

import pytest

from millstream.events import Event, StoreFailed, StoreRecovered
from millstream.telemetry.emitter import Emitter
from millstream.telemetry.logs import LogSubscriber, make_logger
from millstream.telemetry.repeats import EVERY_S
from tests.telemetry.test_logs import Sink


class Log:
    """What a process writes of what it is told, at the time that a test says it is."""

    def __init__(self, level: str = "debug") -> None:
        self.now = 0.0
        self._sink = Sink()
        logger = make_logger(log_format="json", level=level, stream=self._sink, wall=lambda: 0.0)
        self.tell = Emitter(LogSubscriber(logger, mono=lambda: self.now))

    def failed(self, during: str, times: int = 1) -> None:
        """Tell that Redis refused a place, again and again."""
        event: Event = StoreFailed(during=during, error="cannot reach Redis")
        for _ in range(times):
            self.tell(event)

    def lines(self) -> list[tuple[str, str, int]]:
        """Return event, place, and how many others each line stands for."""
        return [(x["event"], x["during"], x.get("left_out", 0)) for x in self._sink.entries()]


def test_the_first_refusal_of_each_place_is_told_at_once_and_the_rest_counted() -> None:
    """238 lines in 15 seconds hid what else went wrong; a line then says how many it stands for."""
    log = Log()

    log.failed("compare default:0", times=100)
    log.failed("sweep default:0")
    log.now = EVERY_S - 0.1
    log.failed("compare default:0")
    assert log.lines() == [
        ("store_failed", "compare default:0", 0),
        ("store_failed", "sweep default:0", 0),
    ]

    log.now = EVERY_S
    log.failed("compare default:0", times=2)
    log.failed("sweep default:0")
    assert log.lines()[2:] == [
        ("store_failed", "compare default:0", 100),
        ("store_failed", "sweep default:0", 0),
    ]


@pytest.mark.parametrize("level", ["debug", "warning"])
def test_the_next_outage_of_a_place_is_told_at_once(level: str) -> None:
    """Also where the end of the first one is too quiet to be written."""
    log = Log(level)

    log.failed("compare default:0", times=3)
    log.tell(StoreRecovered(during="compare default:0", away_s=1.0))
    log.failed("compare default:0", times=3)

    told = [line for line in log.lines() if line[0] == "store_failed"]
    assert told == [("store_failed", "compare default:0", 0)] * 2


def test_places_without_number_do_not_pile_up() -> None:
    """A bound holds, and what it forgets is told once more rather than not at all."""
    log = Log("error")
    written = Log()
    for number in range(2_500):
        log.failed(f"place {number}")
        written.failed(f"place {number}")

    assert log.lines() == []
    assert len(written.lines()) == 2_500
