"""Server-sent events, read from bytes as they come.

Promise: one event never holds more than the limit, however the server cuts it into pieces. It
knows nothing of JSON-RPC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from millstream_worker.tools.faults import TooLarge

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, and the id under which a cut stream can be taken up again."""

    data: bytes
    id: str | None = None


class EventParser:
    """Turns chunks into events."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        #: Up to here `_rest` holds no line end: what was searched is not searched again.
        self._searched = 0
        self._data: list[bytes] = []
        self._size = 0
        self.last_id: str | None = None
        #: The pause that the server asks for before its stream is taken up again, in seconds.
        self.retry_s: float | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that this chunk completes."""
        self._rest += chunk
        events = []
        for line in self._lines():
            event = self._take(line)
            if event is not None:
                events.append(event)

        if self._size + len(self._rest) > self._limit:
            raise TooLarge(self._limit)
        return events

    def _lines(self) -> list[bytes]:
        lines: list[bytes] = []
        begin = 0
        for match in _LINE_END.finditer(self._rest, self._searched):
            if match.group() == b"\r" and match.end() == len(self._rest):
                # It may be the first half of \r\n.
                break
            lines.append(bytes(self._rest[begin : match.start()]))
            begin = match.end()

        del self._rest[:begin]
        self._searched = max(0, len(self._rest) - 1)
        return lines

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._finish()

        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._size += len(value)
                if self._size > self._limit:
                    raise TooLarge(self._limit)
                self._data.append(value)
            case b"id" if b"\0" not in value:
                self.last_id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit():
                self.retry_s = int(value) / 1000
            case _:
                pass  # comments, event names and what is not defined

        return None

    def _finish(self) -> Event | None:
        data, self._data, self._size = self._data, [], 0
        whole = b"\n".join(data)
        # An event without data only names a place in the stream.
        return Event(whole, self.last_id) if whole else None
