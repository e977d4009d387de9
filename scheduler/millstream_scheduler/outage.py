"""Tell of an outage of Redis twice: when it begins and when it is over. Not at every attempt."""

from __future__ import annotations

from collections.abc import Callable

from millstream.errors import StoreError
from millstream.events import Emit, StoreFailed, StoreRecovered


class Outage:
    """What one loop knows of Redis: it answers, or has not since a while."""

    def __init__(self, during: str, emit: Emit, mono: Callable[[], float]) -> None:
        self._during = during
        self._emit = emit
        self._mono = mono
        self._since: float | None = None

    def failed(self, error: StoreError) -> None:
        """Redis did not answer, or answered no."""
        if self._since is None:
            self._since = self._mono()
            self._emit(StoreFailed(during=self._during, error=f"{type(error).__name__}: {error}"))

    def answered(self) -> None:
        """Redis answered."""
        if self._since is not None:
            self._emit(StoreRecovered(during=self._during, away_s=self._mono() - self._since))
            self._since = None
