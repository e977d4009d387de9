"""A TCP proxy that can be told to lie: to fall silent without closing, or to reset."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Self

_LINGER_NOT = struct.pack("ii", 1, 0)


class _Link:
    """One connection from a client to the server."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.speaks = threading.Event()
        self.speaks.set()
        self.threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True, name="proxy-pump")
            for ends in ((near, far), (far, near))
        ]
        for thread in self.threads:
            thread.start()

    def close(self, *, reset: bool = False) -> None:
        """End both sides, politely or not."""
        self.speaks.set()
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                # A read in another thread keeps the socket alive past `close`: wake it.
                end.shutdown(socket.SHUT_RD)
            end.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.speaks.wait()
                target.sendall(data)
            self.speaks.wait()
            target.shutdown(socket.SHUT_WR)


class Proxy:
    """Forwards connections to a port of this machine. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="proxy")

    @property
    def url(self) -> str:
        """Where a client finds Redis through this proxy."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close()
        for link in links:
            for thread in link.threads:
                thread.join(5)

    def fall_silent(self) -> int:
        """Forward nothing more on the connections there are, and close none; return how many.

        New connections are served: so it is when a machine in between forgot what it knew.
        """
        with self._lock:
            for link in self._links:
                link.speaks.clear()
            return len(self._links)

    def reset(self) -> int:
        """Reset the connections there are; return how many."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close(reset=True)
        return len(links)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._links.append(_Link(near, far))
