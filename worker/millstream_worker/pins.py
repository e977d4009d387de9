"""Which catalogue of tools each server showed a run first.

A server that describes its tools differently later in the same run is reported: what a model was
told a tool does may no longer be what it does. Reports only; it forbids nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.events import ToolCatalogueChanged
from millstream.model.journal import Record, RecordStatus, StepKind
from millstream_worker.steps import Recorder, Step


class Pins:
    """The catalogues that one run has seen, by server."""

    def __init__(self, recorder: Recorder, visit: Callable[[Step], Record | None]) -> None:
        self._recorder = recorder
        self._visit = visit
        self._pinned: dict[str, str] = {}

    def recall(self, server: str) -> None:
        """Take what the journal has; to be called at every call, also at one that is replayed."""
        record = self._visit(_step(server))
        if record is not None:
            self._pinned.setdefault(server, record.value)

    def check(self, server: str, catalogue: str) -> None:
        """Pin the catalogue with whatever is written next, or report that it has changed."""
        before = self._pinned.get(server)
        self._pinned[server] = catalogue
        if before is None:
            step = _step(server)
            record = self._recorder.record(
                step, RecordStatus.OK, catalogue, began=self._recorder.wall()
            )
            self._recorder.write_later(step, record)
        elif before != catalogue:
            event = ToolCatalogueChanged(server=server, before=before, after=catalogue)
            self._recorder.environment.emit(event)


def _step(server: str) -> Step:
    return Step(key=f"tools of {server}", kind=StepKind.VALUE, target=server, digest="")
