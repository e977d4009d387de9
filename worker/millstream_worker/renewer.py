"""Say that this process is alive, from a thread with a connection of its own.

The event loop may be blocked by a workflow's own code; that is slow, not dead, and must cost no
lease. Only code that holds the interpreter's lock longer than the lease can stop this thread, and
then the fence keeps it harmless.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from millstream.errors import MillstreamError
from millstream.events import Emit, LeaseRenewed, StoreFailed
from millstream.store import leases
from millstream.store.connection import Connection
from millstream.store.keys import Lane
from millstream_worker.lease import Lease


class Renewer:
    """The thread that renews. Stopping it resigns nothing."""

    def __init__(
        self,
        connection: Connection,
        lanes: Sequence[Lane],
        token: str,
        lease: Lease,
        *,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        #: Grows while this thread runs.
        self._lanes = lanes
        self._token = token
        self._lease = lease
        self._emit = emit
        self._mono = mono
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew_forever, name="renewer", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; returns when the thread has ended, or after two seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _renew_forever(self) -> None:
        # A connection that went silent must be given up while the lease still holds.
        client = self._connection.new_threaded_client(self._lease.length_s / 3)
        failing = False
        first = True
        while not self._stopping.is_set():
            sent = self._mono()
            try:
                renewal = leases.renew_blocking(
                    self._connection, client, tuple(self._lanes), self._token, self._lease.length_s
                )
            except MillstreamError as error:
                client.close()
                # A connection may have died long ago, and only this call found out: then a fresh
                # one answers at once.
                self._stopping.wait(self._lease.length_s / 10 if failing else 0.0)
                if not failing:
                    self._emit(StoreFailed(during="renew", error=str(error)))
                failing = True
            else:
                failing = False
                # The first is a grant: there was nothing yet that could have run out.
                lapsed, first = renewal.lapsed and not first, False
                self._lease.renewed(sent, lapsed=lapsed)
                self._emit(LeaseRenewed(lapsed=lapsed, took_s=self._mono() - sent))
                self._stopping.wait(self._lease.length_s / 3)

        client.close()
