"""One emitter in front of several subscribers.

Promise: emitting never raises. A subscriber with a bug loses its own events and nobody else's,
and costs no run its life. Which subscriber hears a kind of event, and how, is asked once a kind: a
busy worker emits a hundred thousand a second. It does not know what they do with an event.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from millstream.events import Emit, Event


def _to_stderr(error: Exception) -> None:
    traceback.print_exception(error, file=sys.stderr)


class Emitter:
    """Hands each event to every subscriber, in the order given. Usable as an `Emit`.

    A subscriber may have a method ``hears(kind)``: it returns what is called for events of a kind
    instead of the subscriber itself, or None when it has no use for them.
    """

    def __init__(
        self, *subscribers: Emit, broken: Callable[[Exception], None] = _to_stderr
    ) -> None:
        self._subscribers = subscribers
        self._broken = broken
        self._told: set[int] = set()
        #: By kind of event: who hears it, each with its number.
        self._routes: dict[type[Event], tuple[tuple[int, Emit], ...]] = {}

    def __call__(self, event: Event) -> None:
        """Hand the event on; what a subscriber raises is reported once for that subscriber."""
        route = self._routes.get(type(event))
        if route is None:
            route = self._routes[type(event)] = self._route(type(event))
        for number, hear in route:
            try:
                hear(event)
            except Exception as error:  # noqa: BLE001 - telemetry must never end a run
                self._report(number, error)

    def _route(self, kind: type[Event]) -> tuple[tuple[int, Emit], ...]:
        heard: list[tuple[int, Emit]] = []
        for number, subscriber in enumerate(self._subscribers):
            hears = getattr(subscriber, "hears", None)
            try:
                hear = subscriber if hears is None else hears(kind)
            except Exception as error:  # noqa: BLE001 - telemetry must never end a run
                self._report(number, error)
                continue
            if hear is not None:
                heard.append((number, hear))
        return tuple(heard)

    def _report(self, number: int, error: Exception) -> None:
        # Once: what fails for one event will fail for thousands, and the report is no log.
        if number not in self._told:
            self._told.add(number)
            self._broken(error)
