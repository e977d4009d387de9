"""Stands between a worker and an MCP server and counts the calls that reach it.

Run as a script, with nothing but the standard library: the guard that keeps a server from
outliving its worker starts it, and it starts the server. What the worker says passes through;
what the server answers goes to the worker directly.

    python -I -S tap.py EFFECTS_FILE WORKER COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

_KEY = "millstream.dev/idempotency-key"


def main(file: str, worker: str, command: list[str]) -> None:
    """Start the server, pass on what it is told, and end when it does."""
    server = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 - the demo's own server
    assert server.stdin is not None
    # Only the server holds the output now: when it ends, the worker sees that.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    effects = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for line in sys.stdin.buffer:
            if b'"tools/call"' in line:
                _note(effects, worker, line)
            server.stdin.write(line)
            server.stdin.flush()
        server.stdin.close()
    except BrokenPipeError:
        pass  # it has ended; the thread says so
    server.wait()


def _note(effects: int, worker: str, line: bytes) -> None:
    message = json.loads(line)
    if message.get("method") == "tools/call":
        key = message["params"].get("_meta", {}).get(_KEY, "")
        os.write(effects, (json.dumps({"worker": worker, "call": key}) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
