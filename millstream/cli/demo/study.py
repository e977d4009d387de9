"""The workflows of the demo: a git repository is read, commit by commit and file by file.

One run surveys the repository; one run for each commit and each file asks the MCP server for the
text and reads it in steps; one run for each file searches it for the words of the commits; one last
run puts the findings together. Whatever happens to a worker in between, a step that was recorded is
not done again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from millstream import Context, RetryPolicy, ToolResult, Workflows
from millstream.cli.demo import alike, effects, history, reading, searching, summary
from millstream.cli.demo.effects import counted
from millstream.cli.demo.findings import Commit, Mark, Source, Survey
from millstream.cli.demo.kinds import kind_of

app = Workflows()

#: The name of the MCP server in the worker's configuration.
SERVER = "git"
#: The largest text that is asked of the server, in bytes of JSON. The journal keeps its answer
#: as data, as text and as content: three times this must fit into one record.
READ_AT_MOST = 250_000
#: A git that is slow once may be quick the second time.
_AGAIN = RetryPolicy(max_attempts=3, initial=0.2)


@app.workflow(name="survey", timeout=90)
async def survey(ctx: Context, repo: str, commits: int, files: int) -> Survey:
    """Find out what there is, and what is worth a run of its own."""
    effects.belong_to(ctx.run_id)
    status = await ctx.tool(SERVER, "git_status", {"repo_path": repo}, retry=_AGAIN)
    past = await ctx.step(history.whole_history, repo)
    shas = await ctx.step(history.newest_commits, repo, commits)
    contents = await ctx.step(history.what_there_is, repo)
    worth = await ctx.step(history.files_worth_reading, repo, shas, files, READ_AT_MOST)
    return Survey(
        branch=_branch(status),
        clean="nothing to commit" in status.text,
        history=past,
        commits=shas,
        files=worth,
        contents=contents,
    )


@app.workflow(name="commit", timeout=60)
async def commit(ctx: Context, repo: str, sha: str, pause: float) -> Commit:
    """Read one commit."""
    effects.belong_to(ctx.run_id)
    measured = await ctx.step(history.measure, repo, sha, READ_AT_MOST)
    ctx.emit("measured", {"files": measured.file_count, "added": measured.added})
    shown = None
    if measured.read:
        shown = await _show(ctx, repo, sha)
    await ctx.sleep(pause)  # one server serves everybody: do not ask it for everything at once
    marks = await ctx.step(read_change, shown or "")
    ctx.emit("read", {"tasks": len(marks["tasks"]), "risks": len(marks["risks"])})
    read = replace(measured, read=shown is not None, tasks=marks["tasks"], risks=marks["risks"])
    return await ctx.step(judge, read)


@app.workflow(name="file", timeout=60)
async def file(ctx: Context, repo: str, path: str, pause: float) -> Source:
    """Read one file as it is now, and who wrote it."""
    effects.belong_to(ctx.run_id)
    text = await _show(ctx, repo, f"HEAD:{path}")
    ctx.emit("shown", {"characters": len(text or "")})
    await ctx.sleep(pause)
    source = await ctx.step(read_source, path, text or "")
    return await ctx.step(history.ask_for_authors, repo, source)


@app.workflow(name="search", timeout=60)
async def search(ctx: Context, repo: str, path: str, asked: list[str]) -> list[searching.Hit]:
    """Find the passages of a file that read most like what is asked for."""
    effects.belong_to(ctx.run_id)
    passages = await ctx.step(searching.cut, repo, path)
    vectors = await ctx.infer("embedder", [*asked, *(passage.text for passage in passages)])
    return await ctx.step(searching.closest, path, asked, passages, vectors)


@app.workflow(name="summary", timeout=60)
async def summarise(
    ctx: Context,
    survey: Survey,
    commits: list[Commit],
    files: list[Source],
    hits: list[searching.Hit],
) -> dict[str, Any]:
    """Put together what the other runs found."""
    effects.belong_to(ctx.run_id)
    vectors = await ctx.infer("embedder", alike.words(commits))
    return {
        "people": await ctx.step(summary.people, commits),
        "areas": await ctx.step(summary.areas, commits),
        "hotspots": await ctx.step(summary.hotspots, commits, files),
        "together": await ctx.step(summary.together, commits),
        "alike": await ctx.step(alike.nearest, commits, vectors),
        "found": await ctx.step(searching.best, hits),
        "biggest": await ctx.step(summary.biggest, commits),
        "riskiest": await ctx.step(summary.riskiest, commits),
        "tests": await ctx.step(summary.tests, commits),
        "tasks": await ctx.step(summary.tasks, commits, files),
        "activity": await ctx.step(summary.activity, survey.history),
    }


async def _show(ctx: Context, repo: str, revision: str) -> str | None:
    """Ask the server for a commit or a file; None when git cannot show it."""
    arguments = {"repo_path": repo, "revision": revision}
    shown = await ctx.tool(SERVER, "git_show", arguments, retry=_AGAIN)
    return None if shown.is_error else shown.text


def _branch(status: ToolResult) -> str:
    for line in status.text.splitlines():
        if line.startswith("On branch "):
            return line.removeprefix("On branch ").strip()
    return ""


@counted
def read_change(patch: str) -> dict[str, list[Mark]]:
    """Find the open tasks and the risky lines that a patch adds."""
    lines = list(reading.added_lines(patch))
    return {"tasks": reading.tasks(lines), "risks": reading.risks(lines)}


@counted
def judge(found: Commit) -> Commit:
    """Say whether the commit deserves a second look, and why."""
    weight, reasons = reading.weigh(found)
    return replace(found, weight=weight, reasons=reasons)


@counted
def read_source(path: str, text: str) -> Source:
    """Measure a file."""
    lines = text.split("\n")
    longest, name = reading.longest_function(path, text)
    return Source(
        path=path,
        kind=kind_of(path),
        lines=len(lines) - (not lines[-1]),
        blank=sum(not line.strip() for line in lines[:-1]),
        longest=longest,
        longest_name=name,
        tasks=reading.tasks((path, number, line) for number, line in enumerate(lines, 1)),
    )
