"""The text of a model on its way to whoever watches the run, in pieces of a sensible size.

A token is no event: pieces are gathered until there is enough of them or enough time has gone by,
and no piece leaves before the one before it stands, so that a store that is slow gets larger pieces
and not more of them. What is said here is in no journal. It names the try that wrote it and where
in that try's text it belongs; the record of the step is the answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from millstream.model.progress import EventKind
from millstream_worker.held import Held
from millstream_worker.progress import saying
from millstream_worker.sent import Sent
from millstream_worker.steps import Step

#: Characters that leave at once, and after how long fewer do.
_ENOUGH = 2_000
_AFTER_S = 0.2
#: Characters of one event: however they are escaped, they fit into it.
_MOST = 8_000


class Text:
    """The text of one call of a model. Called in the event loop; never raises."""

    def __init__(self, held: Held, step: Step) -> None:
        self._held = held
        self._step = step
        self._tries = 0
        #: By input: how far its text has come, and what has not been said of it.
        self._offsets: dict[int, int] = {}
        self._pieces: dict[int, list[str]] = {}
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sent: Sent | None = None

    def begin(self, tries: int) -> None:
        """The model is asked, or asked again: what it says begins anew."""
        self._drop()
        self._tries = tries
        self._offsets.clear()

    def add(self, number: int, piece: str) -> None:
        """Take a piece of the answer to one of the inputs."""
        if not piece or self._held.stopped is not None:
            return
        self._pieces.setdefault(number, []).append(piece)
        self._size += len(piece)
        if self._size >= _ENOUGH:
            self._leave()
        elif self._timer is None:
            self._wait()

    def end(self) -> None:
        """The answer is whole: what is left of its text leaves with its record."""
        self._stop_waiting()
        if self._held.stopped is None:
            self._say()
        self._drop()

    def close(self) -> None:
        """Nothing more is said."""
        self._drop()

    def _leave(self) -> None:
        self._stop_waiting()
        if self._held.stopped is not None:
            self._drop()
        elif self._sent is not None and self._sent.verdict is None:
            self._wait()
        else:
            self._say()
            self._sent = self._held.send()

    def _say(self) -> None:
        for number, pieces in self._pieces.items():
            text = _whole("".join(pieces))
            for first in range(0, len(text), _MOST):
                self._held.say(saying(EventKind.TEXT, "text", self._part(number, text, first)))
            self._offsets[number] = self._offsets.get(number, 0) + len(text)
        self._pieces.clear()
        self._size = 0

    def _part(self, number: int, text: str, first: int) -> dict[str, Any]:
        delivery = self._held.delivery
        return {
            "step": self._step.key,
            "input": number,
            "offset": self._offsets.get(number, 0) + first,
            "text": text[first : first + _MOST],
            "attempt": delivery.attempt,
            "fence": delivery.fence,
            "tries": self._tries,
        }

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_AFTER_S, self._leave)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        self._stop_waiting()
        self._pieces.clear()
        self._size = 0


def _whole(text: str) -> str:
    """Return a text whose every character can be written: a server may cut a pair in two."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
