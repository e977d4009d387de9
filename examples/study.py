r"""Read the newest commits of a git repository through a public MCP server, all at the same time.

pip install '.[worker,scheduler,memory]' mcp-server-git
millstream dev examples/study.py:app --mcp examples/servers.json \
    --enqueue study --arg repo=. --once
"""

import re
from collections import Counter
from typing import Any

from millstream import Context, RetryPolicy, Workflows
from millstream.errors import PayloadTooLarge

app = Workflows()


@app.workflow(timeout=120, retry=RetryPolicy(max_attempts=2))
async def study(ctx: Context, repo: str, commits: int = 10) -> dict[str, Any]:
    """Say which files were changed most in the newest commits."""
    log = await ctx.tool("git", "git_log", {"repo_path": repo, "max_count": commits})
    shas = re.findall(r"^Commit: (\w+)", log.text, re.MULTILINE)
    # Each branch has its own steps: what one of them has recorded, no crash undoes.
    read = await ctx.gather(*(changes(ctx, repo, sha) for sha in shas))
    return {"commits": len(shas), "most_changed": await ctx.step(most_changed, read)}


async def changes(ctx: Context, repo: str, sha: str) -> dict[str, int]:
    """Ask for one commit; return the changed lines by file."""
    try:
        shown = await ctx.tool("git", "git_show", {"repo_path": repo, "revision": sha})
    except PayloadTooLarge:
        return {}  # no journal takes a commit of that size
    counts = await ctx.step(count_lines, "" if shown.is_error else shown.text)
    ctx.emit("read", {"commit": sha[:8], "files": len(counts)})
    return counts


def count_lines(patch: str) -> dict[str, int]:
    """Count added and removed lines by file. A plain function: it runs in a thread."""
    counts: Counter[str] = Counter()
    path = ""
    for line in patch.splitlines():
        if line.startswith("+++ "):
            path = line[4:].removeprefix("b/")
        elif path and line.startswith(("+", "-")) and not line.startswith("---"):
            counts[path] += 1
    return counts


def most_changed(read: list[dict[str, int]]) -> list[tuple[str, int]]:
    """Add it all up."""
    return sum((Counter(counts) for counts in read), Counter[str]()).most_common(5)
