"""Watches every write as it happens, and knows what may never change.

After each script the runs that stand in the store are compared with how they stood before. A
promise that is broken raises `Broken` in the check, which ends the history with its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.exceptions import NoScriptError

from millstream.model.journal import RecordStatus
from millstream.model.run import FINAL, MOVES, RunState
from millstream.store import codec, scripts
from tests.simulation.network import Link, Request
from tests.simulation.view import LaneView, View

SCRIPTS = (
    "cancel", "commit", "depth", "due", "elect", "enqueue", "fork", "holdings", "prune", "renew",
    "restore", "revive", "schedule", "signal", "start", "sweep", "watch",
)  # fmt: skip
_WRITE = {
    "cancel", "commit", "enqueue", "prune", "restore", "revive", "signal", "start", "sweep",
    "watch",
}  # fmt: skip
_REMOVE = {b"XACK", b"XDEL", b"ZREM", b"DEL"}
#: Where a run stands that is not in a stream.
_INDEXES = {b"scheduled": "timers", b"parked": "parked"}
_PASSING = {RecordStatus.INTENT, RecordStatus.WAITING, RecordStatus.RESOLVED}
#: What a later attempt may drop: a step that failed, or a child that did.
_DROPPED = {RecordStatus.FAILED, RecordStatus.ENDED}


class Shadow:
    """The store's history as it should be."""

    def __init__(self, view: View, broken: Callable[[str, str], None]) -> None:
        self._view = view
        self._broken = broken
        self._names = {scripts.script(name).sha.encode(): name for name in SCRIPTS}
        self._bodies = {scripts.script(name).body: name for name in SCRIPTS}
        self._runs: dict[str, dict[bytes, bytes]] = {}
        self._journals: dict[str, dict[bytes, bytes]] = {}
        self._length: tuple[int, ...] = ()
        #: How often a run was started again by the client, as far as the store knows.
        self.revived: dict[str, int] = {}

    def name_of(self, fields: list[bytes]) -> str:
        """Return the name of the script that a command runs; '' for other commands."""
        command = fields[0].upper()
        if command == b"EVALSHA":
            return self._names.get(fields[1], "?")
        if command == b"EVAL":
            return self._bodies.get(fields[1], "?")

        return ""

    def recorded(self, label: str) -> bool:
        """Whether the journal holds how the step with this label ended."""
        journal = self._view.journal(label.partition("/")[0])
        suffix = f":{label}".encode()
        return any(
            key.endswith(suffix) and _status(data) not in _PASSING for key, data in journal.items()
        )

    def executed(self, link: Link, fields: list[bytes], reply: Any) -> None:
        """Check what a command has done to the runs."""
        name = self.name_of(fields)
        if name not in _WRITE:
            if fields[0].upper() in _REMOVE:
                self._check_places(fields[0].decode())
            return
        if isinstance(reply, Exception):
            if not isinstance(reply, NoScriptError):
                self._broken("scripts do not fail", f"{name} by {link.host.name}: {reply}")
            return

        token = fields[3 + int(fields[2])] if name == "commit" else b""
        moved = False
        if name in {"enqueue", "start"}:
            self._view.look_for_runs()
        for run_id, run, journal in self._view.live():
            before = self._runs.get(run_id)
            if run != before:
                moved = True
                self._moved(run_id, before, dict(run), name, token)
            if journal != self._journals.get(run_id, {}):
                owners = {run.get(b"owner"), (before or {}).get(b"owner")}
                self._written(run_id, owners, token, name)
        length = self._view.length()
        if moved or length != self._length:
            self._length = length
            self._check_places(name)

    def writes(self, request: Request) -> bool:
        """Whether a request is a commit with something to write."""
        if isinstance(request, bytes) or self.name_of(request) != "commit":
            return False
        return len(request) > 3 + int(request[2]) + len(scripts.script("commit").args)

    def _check_places(self, name: str) -> None:
        """State, timer and delivery are one: a run stands where its state says, at any instant."""
        for view in self._view.lanes:
            self._check_lane(view, name)

    def _check_lane(self, view: LaneView, name: str) -> None:
        lane, beside = view.lane, view.beside()
        standing = {(entry, run_id) for _, entry, run_id, _ in view.entries()}
        for run_id in view.ids():
            run = self._runs.get(run_id)
            if run is None:
                continue
            state, key = run[b"state"], run_id.encode()
            if state in {b"queued", b"running"}:
                entry = run[b"entry"].decode()
                sound = (entry, run_id) in standing or (not entry and key in beside)
            elif state in _INDEXES:
                sound = key in view.scores(getattr(lane, _INDEXES[state]))
            else:
                sound = True
            if not sound:
                self._broken("state and delivery move together", f"{run_id} after {name}: {run}")
        for expected, index in _INDEXES.items():
            for key in view.scores(getattr(lane, index)):
                run = self._runs.get(key.decode(), {})
                if run.get(b"state") != expected:
                    self._broken("a timer stands once", f"{key!r} in {index} after {name}: {run}")

    # -- one run -------------------------------------------------------------------------------

    def _moved(
        self,
        run_id: str,
        before: dict[bytes, bytes] | None,
        run: dict[bytes, bytes],
        name: str,
        token: bytes,
    ) -> None:
        self._runs[run_id] = run
        if before is None:
            return
        if name == "commit" and before[b"state"] == b"running" and before[b"owner"] != token:
            self._broken("no zombie writes", f"{run_id} by {token!r}: {before} became {run}")

        old, new = RunState(before[b"state"].decode()), RunState(run[b"state"].decode())
        if name in {"revive", "start"} and old in FINAL and new not in FINAL:
            self.revived[run_id] = self.revived.get(run_id, 0) + 1
        elif old in FINAL and (new, _end(run)) != (old, _end(before)):
            self._broken("an end is final", f"{run_id}: {old} became {new} by {name}")
        elif not _leads(old, new):
            self._broken("states move by the model", f"{run_id}: {old} to {new} by {name}")
        if int(run.get(b"fence", 0)) < int(before.get(b"fence", 0)):
            self._broken("a fence only grows", f"{run_id}: {before} {run}")

    def _written(self, run_id: str, owners: set[bytes | None], token: bytes, name: str) -> None:
        before = self._journals.get(run_id, {})
        journal = dict(self._view.journal(run_id))
        self._journals[run_id] = journal
        for key, data in journal.items():
            old = before.get(key)
            if old == data:
                continue
            if old is not None and _status(old) not in _PASSING:
                self._broken("a record never changes", f"{run_id} {key.decode()}: {old!r} {data!r}")
            if token not in owners:
                self._broken("no zombie writes", f"{run_id} {key!r} by {token!r}, not {owners}")

        dropped = [key for key in before if key not in journal]
        if dropped and (
            name not in {"commit", "revive", "start"}
            or any(_status(before[key]) not in _DROPPED for key in dropped)
        ):
            self._broken("a record stays", f"{run_id}: {name} dropped {dropped}")


def _leads(old: RunState, new: RunState) -> bool:
    """Whether one script may bring a run from one state to the other: by one move, or by two."""
    return old is new or any(new in {step, *MOVES[step]} for step in MOVES[old])


def _end(run: dict[bytes, bytes]) -> tuple[bytes | None, bytes | None]:
    return run.get(b"result"), run.get(b"error")


def _status(data: bytes) -> RecordStatus:
    return codec.decode_record(data).status
