"""The in-memory store behind a port of this machine, for several processes and no Redis.

Run as ``python -m millstream.store.loopback PORT``; it serves until it is killed, and forgets
everything then. For trying things out: it promises what fakeredis promises, and no speed.
"""

from __future__ import annotations

import select
import sys
import time
from typing import Any

from millstream.errors import MissingExtra, UsageError
from millstream.store.in_memory import MemoryServer

try:
    from fakeredis import TcpFakeServer
    from fakeredis._clients._tcp_server import TCPFakeRequestHandler
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtra("memory", "fakeredis") from error

#: How long a blocking read that found nothing takes at least. fakeredis answers it at once.
_DRY_S = 0.02
#: What `Connection.check` and the doctor ask for; fakeredis does not know INFO.
_INFO = b"# Server\r\nredis_version:7.0.0\r\nmaxmemory_policy:noeviction\r\n"
#: How long one look for more input takes, and so how late a pushed message is at most.
_LOOK_S = 0.005


class _Conversation(TCPFakeRequestHandler):
    """One connection. Unlike the original it survives an error, as a client of Redis expects."""

    def handle(self) -> None:
        """Serve the connection until its other side closes it."""
        while True:
            try:
                if self.current_client.can_read():
                    self._answer()
                elif not self._listen():
                    return
            except ConnectionError:
                return

    def _answer(self) -> None:
        try:
            reply: Any = self.current_client.read_response()
        except ConnectionError:
            raise
        except Exception as refusal:  # noqa: BLE001 - a refused command is an answer too
            reply = _INFO if "unknown command 'info'" in str(refusal).lower() else refusal
        if reply is None:
            time.sleep(_DRY_S)
        self.writer.dump(reply)

    def _listen(self) -> bool:
        """Take in what was sent; False when there will be nothing more."""
        data = self.rfile.readline()
        if not data:
            readable, _, _ = select.select([self.connection], [], [], _LOOK_S)
            if not readable:
                return True
            data = self.rfile.readline()
        if data:
            self.current_client.get_socket().sendall(data)
        return bool(data)


def serve(port: int) -> None:
    """Serve on a port of the loopback interface until the process ends."""
    server = TcpFakeServer(("127.0.0.1", port), server_type="redis", server_version=(7, 0))
    server.fake_server = MemoryServer()
    server.RequestHandlerClass = _Conversation
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        raise UsageError("usage: python -m millstream.store.loopback PORT")
    serve(int(sys.argv[1]))
