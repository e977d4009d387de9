"""One emitter in front of several subscribers.

Promise: emitting never raises. A subscriber with a bug loses its own events and nobody else's,
and costs no run its life. It does not know what the subscribers do with an event.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from millstream.events import Emit, Event


def _to_stderr(error: Exception) -> None:
    traceback.print_exception(error, file=sys.stderr)


class Emitter:
    """Hands each event to every subscriber, in the order given. Usable as an `Emit`."""

    def __init__(
        self, *subscribers: Emit, broken: Callable[[Exception], None] = _to_stderr
    ) -> None:
        self._subscribers = subscribers
        self._broken = broken
        self._told: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Hand the event on; what a subscriber raises is reported once for that subscriber."""
        for number, subscriber in enumerate(self._subscribers):
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 - telemetry must never end a run
                self._report(number, error)

    def _report(self, number: int, error: Exception) -> None:
        # Once: what fails for one event will fail for thousands, and the report is no log.
        if number not in self._told:
            self._told.add(number)
            self._broken(error)
