"""No process is left behind, however the worker ends and however a server resists."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import psutil

from tests.tools.bench import ROOT, benched, in_time, stdio
from tests.tools.fault_tools import read_journal

#: A worker that says when its server answers, and then waits.
WORKER = """
import anyio, sys
from pathlib import Path
from millstream_worker.tools.caller import ToolCaller
from millstream_worker.tools.servers import load_servers

async def main():
    async with ToolCaller(load_servers(Path(sys.argv[1])), emit=lambda _: None) as caller:
        await caller.prepare("faults", "echo", {}, run_id="r")
        print("ready", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def gone(pids: list[int], within_s: float = 10) -> bool:
    """Whether all these processes end in time."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], within_s)[0]:
                return False
        finally:
            os.close(descriptor)
    return True


async def test_a_stubborn_server_and_its_child_end_with_the_caller(tmp_path: Path) -> None:
    """It ignores the end of its input, SIGTERM, and has a child outside its process group."""
    journal = tmp_path / "journal"
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with in_time(40):
        async with benched({"faults": stdio("--stubborn", "--journal", str(journal))}) as bench:
            await bench.call("faults", "echo")
            started = {child.pid for child in psutil.Process().children(recursive=True)} - before
        pids = read_journal(journal)[0]["pids"]

        assert set(pids) <= started
        assert await anyio.to_thread.run_sync(gone, [*started, *pids])


def test_a_server_and_its_child_end_with_a_killed_worker(tmp_path: Path) -> None:
    """Nobody is left who could end them: the kernel tells the guard."""
    journal, config = tmp_path / "journal", tmp_path / "mcp.json"
    entry = stdio("--stubborn", "--journal", str(journal))
    config.write_text(json.dumps({"mcpServers": {"faults": entry}}))
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(config)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'worker'}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        with worker.stdout:
            assert worker.stdout.readline() == "ready\n"
        family = [child.pid for child in psutil.Process(worker.pid).children(recursive=True)]
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    assert set(read_journal(journal)[0]["pids"]) <= set(family)
    assert gone(family)


async def test_a_caller_that_is_cancelled_while_connecting_leaves_nothing(tmp_path: Path) -> None:
    """The process was started a moment ago, and nobody waits for it any more."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with in_time(30):
        async with benched({"faults": stdio()}) as bench:
            with anyio.move_on_after(0.05):
                await bench.prepare("faults", "echo")
        after = {child.pid for child in psutil.Process().children(recursive=True)} - before

        assert await anyio.to_thread.run_sync(gone, list(after))
