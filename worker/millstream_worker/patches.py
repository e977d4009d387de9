"""Does a change of a workflow's code hold for this run? Answered once, and remembered.

A run that has been beyond the changed place goes on as it began; every other run takes the new
way, and has a mark in its journal that says so, written before anything that comes after it.
"""

from __future__ import annotations

from millstream.errors import UsageError
from millstream.model.journal import RecordStatus, StepKind
from millstream_worker.replayer import Replay
from millstream_worker.steps import Recorder, Step


def patched(name: str, replay: Replay, recorder: Recorder) -> bool:
    """Return whether a change holds for a run. See `Context.patched`."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise UsageError(f"ctx.patched takes the name of a change, not {name!r}")

    def mark(key: str) -> None:
        step = Step(key=key, kind=StepKind.VALUE, target=name, digest="")
        record = recorder.record(step, RecordStatus.OK, value=True, began=recorder.wall())
        recorder.write_later(step, record)

    return replay.patched(name, mark)
