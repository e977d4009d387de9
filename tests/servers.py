"""Private Redis and Valkey servers for tests: started, killed, frozen and brought back at will.

Every server listens on a loopback port of its own and keeps its files in a directory of its own,
so that tests of several workers run side by side. No server outlives the process that started
it, not even when that process is killed.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Below the ports that the kernel hands to outgoing connections, so that a server that was
#: killed finds its port free when it comes back; and with room for the bus of a cluster 10,000
#: above.
_PORTS = range(15_000, 22_000)
_START_LIMIT_S = 15.0
#: The kernel ends a child when the *thread* that started it ends. This one stays to the end.
_starter = ThreadPoolExecutor(1, thread_name_prefix="server-starter")


class ServerError(Exception):
    """A server did not start, or does not answer."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: what a server shows, and by whose word it is believed."""

    certificate: Path
    key: Path
    authority: Path

    def settings(self, port: int) -> dict[str, str]:
        """Return the directives of a server that speaks TLS only."""
        return {
            "port": "0",
            "tls-port": str(port),
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.authority),
            "tls-auth-clients": "no",
        }


class RedisServer:
    """One server. Use it as a context manager, or call `start` and `stop`.

    ``program`` is ``redis-server`` or ``valkey-server``; ``config`` holds further directives;
    ``password`` is that of the default user; ``acl`` are the lines of an ACL file, such as
    ``user worker on >secret ~millstream:* &* +@all -flushall``. Nothing is written to disk unless
    ``appendonly`` is true: then a killed server comes back with all that it acknowledged.
    With ``tls`` it listens to nothing else.
    """

    def __init__(
        self,
        program: str = "redis-server",
        *,
        appendonly: bool = False,
        password: str | None = None,
        acl: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.program = program
        self.tls = tls
        self.port = 0
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="millstream-test-"))
        self._settings = {
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "always",
            "logfile": str(self.directory / "server.log"),
            "enable-debug-command": "local",
            **(config or {}),
        }
        if password:
            self._settings["requirepass"] = password
        if acl:
            users = self.directory / "users.acl"
            users.write_text("\n".join([*acl, ""]), "utf-8")
            self._settings["aclfile"] = str(users)
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def available(program: str) -> bool:
        """Whether the program is installed."""
        return shutil.which(program) is not None

    @property
    def url(self) -> str:
        """The address, as the default user."""
        return self.url_as("", self.password) if self.password else self._url("")

    def url_as(self, user: str, password: str) -> str:
        """Return the address as another user."""
        return self._url(f"{quote(user, safe='')}:{quote(password, safe='')}@")

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote."""
        file = self.directory / "server.log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start on a free port and return when the server answers."""
        atexit.register(self.stop)
        try:
            self._start_somewhere()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End the server as a power cut would."""
        process = self._running()
        process.kill()
        process.wait()

    def restart(self) -> None:
        """Start again on the same port, over the same directory; kill it first where it runs."""
        if self.alive:
            self.kill()
        if not self._launch():
            raise ServerError(f"{self.program} lost its port {self.port}:\n{self.log}")

    def freeze(self) -> None:
        """Stop the process without closing anything: connections stay open and silent."""
        os.kill(self._running().pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self._running().pid, signal.SIGCONT)

    def stop(self) -> None:
        """End the server for good and remove its files. Safe to call twice."""
        if self.alive:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def flush(self) -> None:
        """Forget all data and all scripts: as good as new."""
        with self.client() as client:
            client.flushall()
            client.script_flush()

    def client(self, **options: Any) -> redis.Redis:
        """Return a plain client, for looking behind the curtain."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=self.password,
            retry=Retry(NoBackoff(), 0),
            **{"socket_timeout": 10, "protocol": 2, **self._trust(), **options},
        )

    def _trust(self) -> dict[str, Any]:
        return {"ssl": True, "ssl_ca_certs": str(self.tls.authority)} if self.tls else {}

    def _url(self, userinfo: str) -> str:
        if self.tls:
            query = f"?ssl_ca_certs={self.tls.authority}"
            return f"rediss://{userinfo}127.0.0.1:{self.port}/0{query}"
        return f"redis://{userinfo}127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        command = [self.program]
        port = self.tls.settings(self.port) if self.tls else {"port": str(self.port)}
        for name, value in {**self._settings, **port}.items():
            command += (f"--{name}", value)
        return command

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"{self.program} does not run:\n{self.log}")
        return self._process

    def _start_somewhere(self) -> None:
        for _ in range(5):
            self.port = _free_port()
            if self._launch():
                return

        raise ServerError(f"{self.program} found no free port:\n{self.log}")

    def _launch(self) -> bool:
        """Start the process; False when it ended at once because its port was taken."""
        seen = len(self.log)
        self._process = _starter.submit(_popen, self._command()).result()
        deadline = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < deadline:
            if not self.alive:
                if "in use" in self.log[seen:]:
                    return False
                raise ServerError(f"{self.program} ended at once:\n{self.log[seen:]}")
            if self._answers():
                return True
            time.sleep(0.01)

        self.kill()
        raise ServerError(f"{self.program} did not answer in {_START_LIMIT_S} s:\n{self.log}")

    def _answers(self) -> bool:
        """Whether the server has read its files and serves, whoever asks."""
        try:
            with self.client(socket_timeout=1) as client:
                client.ping()
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True
        except redis.RedisError:
            return False  # not listening yet, or still loading

        return True


def _popen(command: list[str]) -> subprocess.Popen[bytes]:
    # With `setpriv` the kernel ends the server when this process is killed; without it (macOS)
    # only an orderly exit does.
    guard = shutil.which("setpriv")
    prefix = [guard, "--pdeathsig", "KILL", "--"] if guard else []
    return subprocess.Popen(
        [*prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

    raise ServerError("no free port")
