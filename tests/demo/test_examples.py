"""The examples run as they stand: whoever copies them starts from something that works."""

from __future__ import annotations

from pathlib import Path

import anyio

from millstream.testing import Harness
from millstream_worker.loader import load
from millstream_worker.tools.servers import load_servers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATCH = "commit 0\n--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n-old\n+new\n+more\n"


async def test_the_first_workflow_greets() -> None:
    """Ten lines that wait and greet."""
    async with Harness(load("hello.py:app", EXAMPLES)) as bench:
        run = await bench.client.enqueue("hello", {"name": "world"})
        while not (await bench.client.depth()).parked:
            await anyio.sleep(0.01)
        await bench.jump(3)

        assert await run.result(timeout=5) == "hello, world"


async def test_the_study_goes_on_after_a_crash() -> None:
    """Its calls are journaled one by one."""
    calls: list[str] = []

    def show(repo_path: str, revision: str) -> str:
        calls.append(revision)
        return PATCH

    tools = {"git": {"git_log": lambda **_: "Commit: a1\nCommit: b2\n", "git_show": show}}
    async with Harness(load("study.py:app", EXAMPLES), tools=tools) as bench:
        bench.crash_after(4)

        assert await bench.run("study", {"repo": "."}) == {
            "commits": 2,
            "most_changed": [["x.py", 6]],
        }
        assert bench.crashes == 1
    assert sorted(calls) == ["a1", "b2"]


def test_the_servers_of_the_study_may_only_read() -> None:
    """The file that declares them is one that a worker accepts."""
    servers = load_servers(EXAMPLES / "servers.json")

    assert servers["git"].permits("git_show")
    assert not servers["git"].permits("git_commit")
