"""The sessions that a worker holds with one server, and who may use which.

Promise: a session with a state belongs to one run, unless the configuration says that runs may
share it; at most one session of a kind is being opened at a time, and all who want it wait for
that one; a program that ends is started again after a pause that grows. It sends no call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from anyio.abc import TaskGroup

from millstream_worker.tools.authorization import Authorization
from millstream_worker.tools.credentials import Redactor
from millstream_worker.tools.faults import Fault, Unsent
from millstream_worker.tools.judge import before_sending
from millstream_worker.tools.pipes import open_pipes
from millstream_worker.tools.servers import ServerSpec, Stdio
from millstream_worker.tools.session import Era, Line, Session
from millstream_worker.tools.web import open_web

#: Programs that are fetched before they start need their time.
_CONNECT_S = 60.0

#: The first restart is at once; the pauses before the next ones double from here.
_RESTART_S = 0.5
_LONGEST_RESTART_S = 30.0


class Sessions:
    """All sessions with one server."""

    def __init__(
        self,
        spec: ServerSpec,
        redactor: Redactor,
        *,
        owners: TaskGroup,
        now: Callable[[], float],
        on_lost: Callable[[], None],
        on_tools_changed: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._redactor = redactor
        self._authorization = _authorization(spec, redactor, now)
        self._owners = owners
        self._now = now
        self._on_lost = on_lost
        self._on_tools_changed = on_tools_changed
        #: Under the run they belong to; under None what all runs share.
        self._sessions: dict[str | None, Session] = {}
        #: Every session whose owner is at work, also one that nobody may use any more.
        self._owned: set[Session] = set()
        self._era: Era | None = None
        self._losses = 0
        self._not_before = 0.0
        #: Whether every run needs a session of its own. For a web server, its first session tells.
        self._private = isinstance(spec.transport, Stdio) and spec.shared_session is False

    async def get(self, run_id: str, deadline: float) -> Session:
        """Return a session that this run may use, opened if there is none."""
        while True:
            key = run_id if self._private else None
            session = self._sessions.get(key)
            if session is not None and session.over:
                # Its owner may still be busy with leaving it.
                self._note_end(session)
                session = None
            if session is None:
                session = self._open(key, run_id)
            if not session.is_ready:
                try:
                    await session.opened(deadline)
                except Fault as fault:
                    raise before_sending(fault) from None

            self._era = session.era
            if key is None and session.stateful and not self._spec.shared_session:
                self._make_private(session)
            if not self._private or session.run_id == run_id:
                return session

    def answered(self) -> None:
        """Take note that the server works: its next restart is at once again."""
        self._losses = 0

    def drop(self, session: Session) -> None:
        """Leave a session that nobody can use any more."""
        if session.lost:
            self._note_end(session)
        else:
            self._end(session)

    def forget_era(self) -> None:
        """Find the era out anew: the server was replaced by one of another."""
        self._era = None
        for session in list(self._sessions.values()):
            self._end(session)

    def release_run(self, run_id: str) -> None:
        """Leave the session that belongs to a run. It ends by itself, in a moment."""
        session = self._sessions.get(run_id)
        if session is not None:
            self._end(session)

    async def aclose(self) -> None:
        """Leave every session, and wait until all have ended."""
        for session in list(self._sessions.values()):
            self._end(session)
        for session in list(self._owned):
            await session.ended.wait()

    def _open(self, key: str | None, run_id: str) -> Session:
        pause_s = self._not_before - self._now()
        if pause_s > 0:
            raise Unsent(
                f"its program ended {self._losses} times and is started again in {pause_s:.1f} s",
                retry_after=pause_s,
            )
        session = Session(
            self._line,
            era=self._era,
            connect_s=min(_CONNECT_S, self._spec.timeout_s),
            run_id=run_id,
            on_tools_changed=self._on_tools_changed,
        )
        self._sessions[key] = session
        self._owned.add(session)
        self._owners.start_soon(self._own, session)
        return session

    async def _own(self, session: Session) -> None:
        await session.own()
        self._owned.discard(session)
        self._note_end(session)

    def _note_end(self, session: Session) -> None:
        """Take note that a session is over: once, whoever finds out first."""
        held = self._remove(session)
        if held and session.lost:
            self._pause()
            self._on_lost()

    def _pause(self) -> None:
        self._losses += 1
        if self._losses > 1 and isinstance(self._spec.transport, Stdio):
            pause_s = _RESTART_S * 2.0 ** min(self._losses - 2, 16)
            self._not_before = self._now() + min(_LONGEST_RESTART_S, pause_s)

    def _line(self) -> AbstractAsyncContextManager[Line]:
        transport = self._spec.transport
        if isinstance(transport, Stdio):
            return open_pipes(self._spec, transport, self._redactor)
        return open_web(
            self._spec, transport, self._redactor, self._on_tools_changed, self._authorization
        )

    def _make_private(self, session: Session) -> None:
        """The first session has shown that the server keeps a state: it is its run's from now."""
        self._private = True
        if self._sessions.get(None) is session:
            del self._sessions[None]
            self._sessions[session.run_id] = session

    def _end(self, session: Session) -> None:
        self._remove(session)
        session.stop()

    def _remove(self, session: Session) -> bool:
        for key, held in list(self._sessions.items()):
            if held is session:
                del self._sessions[key]
                return True
        return False


def _authorization(
    spec: ServerSpec, redactor: Redactor, now: Callable[[], float]
) -> Authorization | None:
    web = spec.transport
    if isinstance(web, Stdio) or web.oauth is None:
        return None
    return Authorization(web.oauth, redactor, allow_private=web.allow_private, now=now)
