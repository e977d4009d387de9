"""``millstream demo``: workflows that survive the death of their worker, on real work.

Two workers study a git repository through a public MCP server; one of them is killed half-way;
the other goes on, and a report about the repository is written. Everything runs on this machine,
on a Redis of its own, and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import anyio
import typer

from millstream import Client
from millstream.cli.demo import git
from millstream.cli.demo.git import Repository
from millstream.cli.demo.play import Play, Played
from millstream.cli.demo.report import write
from millstream.cli.demo.screen import Screen
from millstream.cli.demo.stage import DemoFailed, Stage
from millstream.cli.exits import Exit
from millstream.cli.extras import missing
from millstream.cli.output import Output
from millstream.errors import MissingExtra, UsageError
from millstream.store.local_server import local_server

_REPORT = Path("demo-report.md")
_MOST_COMMITS = 150
#: The public MCP server that the demo calls.
_SERVER = "mcp_server_git"
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    *,
    repo: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Git repository to study.  [default: this one]"),
    ] = None,
    commits: Annotated[
        int, typer.Option(metavar="N", min=1, max=_MOST_COMMITS, help="Newest commits to read.")
    ] = 60,
    report: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the report is written.")
    ] = _REPORT,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the logs, and say where they are.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Write JSON to stdout, and nothing else.")
    ] = False,
) -> Exit:
    """Study a git repository with two workers, kill one half-way, and lose nothing.

    Needs no Redis: it starts one of its own. Takes about half a minute.
    """
    repository = _fit(repo, report)
    return anyio.run(_play, repository, commits, report, keep, Output(json=json))


def _fit(repo: Path | None, report: Path) -> Repository:
    """Find out what is wrong before anything is started."""
    for extra in ("worker", "scheduler"):
        for name in missing(extra):
            raise MissingExtra(extra, name)
    if find_spec(_SERVER) is None:
        raise MissingExtra("demo", _SERVER)
    if report.is_dir() or not os.access(report if report.exists() else report.parent, os.W_OK):
        raise UsageError(f"the report cannot be written to {report}; choose another --report FILE")

    return git.find(repo)


async def _play(
    repository: Repository, commits: int, report: Path, keep: bool, out: Output
) -> Exit:
    """Set the stage, play, and clear it whatever happens."""
    code = Exit.INTERRUPTED
    screen = Screen(out)
    with local_server() as server, _stage(server.url, keep, out) as stage:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_on_signal, group.cancel_scope)
            with screen.playing():
                screen.say(f"studying {repository.path} on a private {server.program}")
                async with Client(server.url) as client:
                    play = Play(repository, stage, client, screen)
                    played = await play.perform(commits, server.program)
            code = _tell(played, report, out)
            group.cancel_scope.cancel()
    return code


@contextlib.contextmanager
def _stage(url: str, keep: bool, out: Output) -> Iterator[Stage]:
    stage = Stage(url)
    at_once = True
    try:
        yield stage
        at_once = False
    finally:
        stage.close(keep=keep, at_once=at_once)
        if keep:
            out.note(f"logs and counts are kept in {stage.directory}")


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(*_STOPS) as signals:
        async for _ in signals:
            scope.cancel()


def _tell(played: Played, report: Path, out: Output) -> Exit:
    """Write the report, and say what was seen."""
    proof, kill = played.proof, played.kill
    report.write_text(write(played), "utf-8")
    if out.json:
        out.document({"report": str(report), "kill": kill, "proof": proof, "took_s": played.took_s})
    else:
        for line in _verdict(played):
            out.plain(line)
        out.plain(f"report: {report}")
    if proof.violations:
        raise DemoFailed(
            f"{len(proof.violations)} steps were not done exactly as recorded;"
            f" the first: {proof.violations[0]}"
        )
    return Exit.OK


def _verdict(played: Played) -> Iterator[str]:
    proof, kill = played.proof, played.kill
    yield ""
    yield f"runs        {proof.runs} completed, {len(proof.moved)} of them moved to {kill.heir}"
    yield f"effects     {proof.effects} counted from outside, {proof.steps + proof.calls} recorded"
    yield f"kept        {proof.kept} records of the killed worker, not done again"
    yield f"cut short   {proof.cut} before they could be recorded, and so run again"
    yield f"violations  {len(proof.violations)} run again after they were recorded"
