"""Runs a device in a process of its own: a dead context, or a crash in native code, is survived.

The child is a fresh interpreter, never a fork: what CUDA has begun does not live through one. It
ends when this process does, however that ends, and is killed when it hangs. What it holds of the
device can be read at any moment, also while it computes. A batch can be handed to it while it
computes another: it begins that one by itself, without waiting for this process to notice.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from millstream_worker.inference.backends import Joining
from millstream_worker.inference.budget import Own
from millstream_worker.inference.declared import ModelSpec
from millstream_worker.inference.engine import UNBOUNDED, Bounds, EngineDied, Loaded, Ran
from millstream_worker.inference.handing import MOST_SENT, Claims, Handed, NotBegun, light, unpacked
from millstream_worker.inference.watchdog import Watchdog

#: Two numbers that the child writes and we read: taken, and of that in reserve.
ACCOUNT = struct.Struct("=QQ")
#: Behind them: a number that grows as long as the child lives, and the latest batch it has begun.
BEAT, BEGUN = struct.Struct("=Q"), struct.Struct("=Q")
SHARED = ACCOUNT.size + BEAT.size + BEGUN.size
#: A model may take so long to load: from a network, most likely.
LOAD_S = 1800.0
_END_S = 3.0
_CHILD = "millstream_worker.inference.child"


class ProcessEngine:
    """An `Engine` in a child. ``uuid`` is the one device that the child sees; empty: the host.

    ``hang_s`` is how long it may give no sign of life.
    """

    killable = True

    def __init__(self, specs: Callable[[str], ModelSpec], uuid: str = "", *, hang_s: float) -> None:
        self._specs = specs
        self._hang_s = hang_s
        self._account_fd = os.memfd_create("millstream-account")
        os.ftruncate(self._account_fd, SHARED)
        self._account = mmap.mmap(self._account_fd, SHARED)
        ours, theirs = socket.socketpair()
        with theirs:
            given = theirs.fileno(), self._account_fd, uuid, os.getpid()
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", _CHILD, *map(str, given)],
                pass_fds=(theirs.fileno(), self._account_fd),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(x for x in sys.path if x)},
            )
        self._pipe = Connection(ours.detach())
        self._claims = Claims(self._account_fd, SHARED)
        #: Questions are numbered from 1 as they are sent: by the event loop, and by the thread of
        #: the device.
        self._tickets = itertools.count(1)
        self._sending = threading.Lock()
        #: Those that were sent and not answered, and those of them that were taken back.
        self._sent: set[int] = set()
        self._left: set[int] = set()
        #: Answers that came before the one which was waited for.
        self._answers: dict[int, Any] = {}
        self._watchdog = Watchdog(self._process.kill, self._beat, hang_s)

    @property
    def pid(self) -> int:
        """The process id of the child."""
        return self._process.pid

    @property
    def occupied(self) -> bool:
        """Whether something was sent that is not answered: what is sent now comes after it."""
        return len(self._sent) > len(self._left)

    def own(self) -> Own:
        """Return what the child holds of the device now."""
        reserved, cached = ACCOUNT.unpack_from(self._account, 0)
        return Own(reserved=reserved, cached=cached)

    def load(self, model: str) -> Loaded:
        """Bring a model to the device."""
        # Libraries that are imported may hold the child's interpreter: that is no silence.
        loaded: Loaded = self._ask("load", self._specs(model), within_s=LOAD_S, silent=True)
        return loaded

    def unload(self, model: str) -> Own:
        """Take a model off the device."""
        own: Own = self._ask("unload", model)
        return own

    def run(
        self,
        model: str,
        payloads: Sequence[Any],
        options: Mapping[str, Any],
        bounds: Bounds = UNBOUNDED,
    ) -> Ran:
        """Run a batch.

        Raises `EngineDied` when the child does, or is killed since it hangs; `NotBegun` when it
        died before this was sent.
        """
        asked = model, list(payloads), dict(options), bounds
        with self._open(bounds.seconds):
            try:
                ticket = self._send("run", asked)
            except OSError:
                died = self._died()
                raise NotBegun(str(died)) from died
            # From here on it is to blame: it may kill the child as it is read.
            ran: Ran = self._answer(ticket)
            return ran

    def hand(
        self,
        model: str,
        payloads: Sequence[Any],
        options: Mapping[str, Any],
        bounds: Bounds = UNBOUNDED,
    ) -> Handed | None:
        """Give the child a batch to begin as soon as it is free; None: it has to be `run`.

        Called on the event loop, so what could keep it waiting is not handed over.
        """
        if len(self._sent) >= MOST_SENT or not light(payloads) or self._sending.locked():
            return None
        try:
            asked = model, list(payloads), dict(options), bounds
            return _Handed(self, self._send("run", asked, handed=True), bounds)
        except Exception:  # noqa: BLE001 - whoever runs it instead hears what is wrong
            return None

    def take_back(self, ticket: int) -> bool:
        """Take back a batch that was handed over; False when it has begun."""
        self._left.add(ticket)  # its answer may come the moment that it is taken
        # The claims of the dead are void, and what they had begun is not untouched.
        taken = self._claims.take(ticket) and self._begun() < ticket
        if not taken:
            self._left.discard(ticket)
        return taken

    def outcome(self, ticket: int, bounds: Bounds) -> Ran:
        """Wait for what becomes of a batch that was handed over.

        Raises `NotBegun` when it was taken back, or the child died before it came to it.
        """
        try:
            with self._open(bounds.seconds):
                ran: Ran = self._answer(ticket)
                return ran
        except EngineDied as error:
            if self._begun() < ticket:
                raise NotBegun(str(error)) from error
            raise

    def advance(
        self,
        model: str,
        joining: Sequence[Joining],
        leaving: Sequence[int],
        bounds: Bounds = UNBOUNDED,
    ) -> Ran:
        """Have a continuous model compute one token of each of its items."""
        asked = model, list(joining), list(leaving), bounds
        ran: Ran = self._ask("advance", *asked, within_s=bounds.seconds)
        return ran

    def sample(self, model: str, length: int) -> Any:
        """Return a payload for measuring."""
        return self._ask("sample", model, length)

    def release(self) -> Own:
        """Give back what nothing holds."""
        own: Own = self._ask("release")
        return own

    def close(self) -> None:
        """End the child: the surest way to have back all that it holds."""
        self._pipe.close()
        self._watchdog.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BufferError, OSError):
            self._account.close()
            os.close(self._account_fd)

    def abandon(self) -> None:
        """Kill the child, whatever it does: from any thread, while another one waits for it."""
        self._process.kill()

    def _beat(self) -> int:
        (beat,) = BEAT.unpack_from(self._account, ACCOUNT.size)
        return int(beat)

    def _begun(self) -> int:
        (begun,) = BEGUN.unpack_from(self._account, ACCOUNT.size + BEAT.size)
        return int(begun)

    def _ask(
        self, verb: str, *args: Any, within_s: float | None = None, silent: bool = False
    ) -> Any:
        with self._open(within_s, silent=silent):
            return self._answer(self._send(verb, args))

    def _send(self, verb: str, args: tuple[Any, ...], *, handed: bool = False) -> int:
        with self._sending:
            ticket = next(self._tickets)
            self._pipe.send((ticket, handed, verb, args))
            self._sent.add(ticket)
        return ticket

    def _answer(self, ticket: int) -> Any:
        """Wait for the answer to one question. Belongs to the thread of the device."""
        while ticket not in self._answers:
            number, answer = self._pipe.recv()
            # Nobody waits any more for what was taken back before its turn came.
            if number == ticket or not isinstance(answer, NotBegun):
                self._answers[number] = answer
            self._left.discard(number)
            self._sent.discard(number)
        answer = unpacked(self._answers.pop(ticket))
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @contextlib.contextmanager
    def _open(self, within_s: float | None, *, silent: bool = False) -> Iterator[None]:
        """Watch the child while a question is open. Raises `EngineDied` when it ends meanwhile."""
        try:
            with self._watchdog.over(within_s, silent=silent):
                yield
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> EngineDied:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        why = f"ended with {self._process.returncode}"
        if self._watchdog.verdict:
            why = f"was killed: {self._watchdog.verdict}"
        return EngineDied(f"the process of the device {why}")


class _Handed(Handed):
    """A batch that the child was given, and begins by itself."""

    def __init__(self, engine: ProcessEngine, ticket: int, bounds: Bounds) -> None:
        self._engine = engine
        self._ticket = ticket
        self._bounds = bounds

    def take_back(self) -> bool:
        """Take it back; False when it has begun."""
        return self._engine.take_back(self._ticket)

    def outcome(self) -> Ran:
        """Wait for what becomes of it. Raises `NotBegun` when it never began."""
        return self._engine.outcome(self._ticket, self._bounds)
