"""A small process between the worker and a stdio server. Run as a script, standard library only.

Promise: the server does not outlive the worker, however the worker ends, and neither does what
the server started; no line longer than the limit reaches the worker, and none that is no
message. A line that is too long is replaced by an error for the request it answers, so that only
that call is lost. It knows of JSON-RPC no more than where a message keeps its id.

    python -I -S guard.py LIMIT PARENT_PID COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

#: Outside the codes that JSON-RPC and MCP reserve. The worker reads it as "too large".
OVERSIZE = 71_009

#: A line that never ends is given up after this many times the limit.
_PATIENCE = 32
_CHUNK = 65_536

#: After a request to end. The worker kills what is left after two seconds: be done before.
_GRACE_S = 1

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: Python's and TypeScript's servers write the id first or last; only there is it surely theirs.
_ID = rb'"id"\s*:\s*(\d+|"[^"\\]*")\s*'
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_FIRST = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb",\s*)?" + _ID + rb",")
_LAST = re.compile(
    rb",\s*(?:" + _ID + rb"(?:,\s*" + _VERSION + rb")?|" + _VERSION + rb",\s*" + _ID + rb")\}\s*$"
)


class Lines:
    """Cuts a stream into lines, none of them longer than the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    @property
    def endless(self) -> bool:
        """Whether the line at hand is so long that it may never end."""
        return self._size > self._limit * _PATIENCE

    def feed(self, chunk: bytes) -> bytes:
        """Return what may be passed on: whole lines, with errors in place of those too long."""
        *ended, rest = chunk.split(b"\n")
        out = []
        for piece in ended:
            self._add(piece)
            out.append(self._end())

        self._add(rest)
        return b"".join(out)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit:
            self._parts.append(piece)
            return
        if self._size - len(piece) <= self._limit:
            # It has just become too long: from here only its two ends are kept.
            self._head = (b"".join(self._parts) + piece)[:256]
            self._parts = []
        self._tail = (self._tail + piece)[-256:]

    def _end(self) -> bytes:
        whole, size, head, tail = self._parts, self._size, self._head, self._tail
        self._parts, self._size, self._head, self._tail = [], 0, b"", b""
        if size <= self._limit:
            line = b"".join(whole)
            # Some servers print their logs here: nothing that anybody waits for.
            return line + b"\n" if line.lstrip()[:1] == b"{" else b""

        found = _FIRST.match(head) or _LAST.search(tail)
        if found is None:
            return b""
        number = next(group for group in found.groups() if group)
        return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":"too large"}}\n' % (
            number,
            OVERSIZE,
        )


class Guard:
    """The server's parent: passes its lines on, and ends it."""

    def __init__(self, limit: int, parent: int, command: list[str]) -> None:
        self._limit = limit
        self._parent = parent
        self._command = command
        self._server = 0
        self._status = 0

    def run(self) -> int:
        """Start the server, pass its lines on until it ends, and return its exit status."""
        signal.signal(signal.SIGHUP, self._on_orphaned)
        signal.signal(signal.SIGTERM, self._on_told_to_end)
        signal.signal(signal.SIGALRM, self._on_orphaned)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
        if os.getppid() != self._parent:
            # The worker died before we asked to be told.
            return 1

        signal.signal(signal.SIGCHLD, self._on_child)
        source = self._start()
        self._pass_on(source)
        self._wait_a_moment()
        self._kill_all()
        return self._status

    def _wait_a_moment(self) -> None:
        """Let a server that closed its output end by itself, for its exit status."""
        for _ in range(20):
            if self._server == 0:
                return
            time.sleep(0.005)

    def _start(self) -> int:
        source, sink = os.pipe()
        # The child may end before fork has returned here: its death must find its number.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._server = os.fork()
        if self._server == 0:
            _become(self._command, sink)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

        os.close(sink)
        # The server alone holds the worker's pipe, so that it sees its end.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return source

    def _pass_on(self, source: int) -> None:
        lines = Lines(self._limit)
        with suppress(BrokenPipeError):
            while chunk := os.read(source, _CHUNK):
                _write(lines.feed(chunk))
                if lines.endless:
                    return

    # -- signals -------------------------------------------------------------------------------

    def _on_orphaned(self, _number: int, _frame: FrameType | None) -> None:
        self._kill_all()
        os._exit(1)

    def _on_told_to_end(self, _number: int, _frame: FrameType | None) -> None:
        # The server is in our process group and has been told as well.
        signal.alarm(_GRACE_S)

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        self._reap()
        if self._server == 0:
            # What it started holds its output open, and has nobody to answer to.
            self._kill_all()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid == self._server:
                    self._server = 0
                    self._status = os.waitstatus_to_exitcode(status) & 0xFF

    def _kill_all(self) -> None:
        """Kill every descendant, also one that left our process group."""
        for _ in range(200):
            self._reap()
            left = {*_descendants(os.getpid()), self._server} - {0}
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # The kernel needs a moment to hand us the orphans of what we killed.
            time.sleep(0.005)


def _become(command: list[str], sink: int) -> None:
    """Turn this forked process into the server. Does not return."""
    os.dup2(sink, 1)
    # Should this guard be killed alone, the server goes with it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        os.execvp(command[0], command)  # noqa: S606  the operator's command, without a shell
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  plain names: this must be quick
        if entry.isdigit():
            with suppress(OSError, ValueError, IndexError):
                stat = Path(f"/proc/{entry}/stat").read_text("utf-8", "replace")
                # After the name, which may hold anything: the state, then the parent.
                parent = int(stat[stat.rindex(")") + 2 :].split()[1])
                children.setdefault(parent, []).append(int(entry))

    found: list[int] = []
    ahead = [root]
    while ahead:
        ahead = [child for pid in ahead for child in children.get(pid, ())]
        found += ahead
    return found


def _prctl(option: int, value: int) -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(Guard(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).run())
