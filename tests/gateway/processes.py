"""Gateway processes: started by the command line, killed, and asked over HTTP."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.processes.fleet import ROOT, wait_until


class GatewayProcess:
    """One gateway, on free ports of the loopback address."""

    def __init__(self, log: Path, url: str, *flags: str) -> None:
        self._path = log
        self._file = log.open("wb")
        command = ["gateway", "--redis", url, "--http", "0", "--metrics", "0", "--grpc", "0"]
        command.append("--json")
        guard = ["setpriv", "--pdeathsig", "KILL", "--"] if sys.platform == "linux" else []
        self.process = subprocess.Popen(
            [*guard, sys.executable, "-m", "millstream.cli", *command, *flags],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("MILLSTREAM_")},
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=self._file,
        )

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._path.read_text("utf-8", "replace")

    @property
    def base(self) -> str:
        """Where it is reached."""
        (port,) = wait_until(
            lambda: re.findall(r"http on port (\d+)", self.log), 30, f"a port:\n{self.log}"
        )
        return f"http://127.0.0.1:{port}"

    @property
    def metrics(self) -> str:
        """Where its metrics are."""
        (port,) = wait_until(lambda: re.findall(r"metrics on port (\d+)", self.log), 30, "a port")
        return f"http://127.0.0.1:{port}/metrics"

    @property
    def grpc(self) -> str:
        """Where A2A over gRPC is."""
        (port,) = wait_until(lambda: re.findall(r"grpc on port (\d+)", self.log), 30, "a port")
        return f"127.0.0.1:{port}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 15) -> int:
        """Tell it to leave; return how it ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.kill()
        self._file.close()


@contextlib.contextmanager
def gateways(directory: Path, url: str, count: int, *flags: str) -> Iterator[list[GatewayProcess]]:
    """Run several for this block."""
    started = [GatewayProcess(directory / f"g{n}.log", url, *flags) for n in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.close()
