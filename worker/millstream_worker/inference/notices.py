"""What workers tell one another: what they hold and plan, and what models do and are like.

Promise: Redis being away never stops a batch. What was heard last counts then, until it is too
old to be believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from millstream.errors import StoreError
from millstream.store import boards
from millstream.store.connection import Connection
from millstream_worker.inference.gauge import BELIEVED_S, Announce

#: How long what was learned of a model is kept, and of how many models on a device.
LAW_S, _MOST_LAWS = 30 * 86_400.0, 200
#: How long a report of models hangs.
REPORT_S = 30.0


class Claim(msgspec.Struct, frozen=True):
    """What one worker says of a device, in bytes."""

    held: int
    #: What it is about to take beyond that.
    planned: int


class Notices:
    """The notes of one worker. ``token`` is its name on every board."""

    def __init__(
        self, connection: Connection, token: str, mono: Callable[[], float] = time.monotonic
    ) -> None:
        self._connection = connection
        self._token = token
        self._mono = mono

    def announcing(self, uuid: str) -> Announce:
        """Return what tells the neighbours on a device, and hears them."""
        board = boards.device(uuid)
        heard = (0, -BELIEVED_S)

        async def announce(held: int, planned: int) -> int:
            nonlocal heard
            note = msgspec.json.encode(Claim(held, planned))
            try:
                notes = await boards.pin(self._connection, board, self._token, note, BELIEVED_S)
            except StoreError:
                sum_, at = heard
                return sum_ if self._mono() - at < BELIEVED_S else 0
            heard = (sum(_planned(x) for x in notes.values()), self._mono())
            return heard[0]

        return announce

    async def recall(self, device: str, model: str) -> bytes | None:
        """Return what was learned of a model on a device; None where nobody knows."""
        try:
            notes = await boards.read(self._connection, boards.laws(device))
        except StoreError:
            return None
        return notes.get(model)

    async def keep(self, device: str, model: str, note: bytes) -> None:
        """Keep what was learned, unless too much is kept of this device already."""
        board = boards.laws(device)
        try:
            notes = await boards.read(self._connection, board)
            if model in notes or len(notes) < _MOST_LAWS:
                await boards.pin(self._connection, board, model, note, LAW_S)
        except StoreError:
            return  # the next one measures for itself

    async def publish(self, host: str, report: Sequence[Mapping[str, Any]]) -> None:
        """Say what the models of this worker do."""
        note = msgspec.json.encode({"host": host, "models": report})
        try:
            await boards.pin(self._connection, boards.MODELS, self._token, note, REPORT_S)
        except StoreError:
            return  # people look again

    async def withdraw(self) -> None:
        """Take down what hangs of this worker where people look."""
        try:
            await boards.pin(self._connection, boards.MODELS, self._token, b"", 1)
        except StoreError:
            return  # it falls off by itself


def _planned(note: bytes) -> int:
    try:
        return max(0, msgspec.json.decode(note, type=Claim).planned)
    except msgspec.DecodeError:
        return 0  # of another release
