"""The commands by name. A command's module is imported when it is called, not before."""

from __future__ import annotations

import importlib
import platform
from importlib.util import find_spec
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from millstream import __version__
from millstream.cli import exits

#: Command -> what it is for. Each lives in the module of its name, which has ``register``.
COMMANDS = {
    "demo": "Watch workflows survive the death of their workers.",
    "dev": "Serve an application on a Redis of its own, for trying things out.",
    "worker": "Serve the workflows of an application.",
    "scheduler": "Fire schedules, clean up after the lost and measure the queues.",
    "gateway": "Answer HTTP: an API, MCP and pages, guarded by tokens and keys.",
    "enqueue": "Enqueue a run, and wait for its result if asked to.",
    "runs": "List, show, cancel, retry, signal and fork runs.",
    "schedules": "Run workflows at the times of a cron line, or at an interval.",
    "canary": "Try a version of a workflow on a share of the new runs.",
    "queues": "Show what the queues hold and who serves them; pause and resume them.",
    "models": "Show the models of the workers, their devices and budgets.",
    "dead": "List and replay the dead letters: runs that failed for good.",
    "keys": "Make, list and revoke the API keys of the gateway.",
    "seal": "Make sealing keys, see what is sealed, and seal it anew.",
    "failover": "Let the replica of another region become the master.",
    "backup": "Copy everything that Redis holds of millstream into a file.",
    "restore": "Bring a copy back into an empty Redis, or check that it is whole.",
    "audit": "Show, export and verify who did what.",
    "bench": "Measure millstream beside its peers, on this machine.",
    "doctor": "Find out what is wrong here, and what to do about it.",
}

_HELP = """Durable agent workflows on the Redis you already run.

Settings come from flags, then MILLSTREAM_* variables, then millstream.toml, then defaults:
--redis is MILLSTREAM_REDIS is redis. Every command has --help and --json."""


def app() -> Any:
    """Return the command line as a callable."""
    root = typer.Typer(
        cls=_Commands,
        add_completion=False,
        rich_markup_mode=None,
        invoke_without_command=True,
        help=_HELP,
        epilog=f"\b\nExit codes:\n{exits.describe()}",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.callback()(_root)
    return typer.main.get_group(root)


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --version: as JSON.")] = False,
) -> None:
    if version:
        python = platform.python_version()
        typer.echo(
            f'{{"millstream":"{__version__}","python":"{python}"}}'
            if json
            else f"millstream {__version__}"
        )
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class _Commands(typer.core.TyperGroup):
    """The commands of the table, loaded one at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Only the names: typer looks for similar ones among them.
        self.commands = dict.fromkeys(_known())  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None when there is no such command."""
        del ctx
        return _load(cmd_name) if cmd_name in self.commands else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table; the commands themselves need not be loaded for it."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.commands])


def _known() -> list[str]:
    return [name for name in COMMANDS if find_spec(f"millstream.cli.{name}")]


def _load(name: str) -> Any:
    part = typer.Typer(add_completion=False, rich_markup_mode=None)
    # Two commands, or typer would make the one command the whole program.
    part.command("-", hidden=True)(lambda: None)
    importlib.import_module(f"millstream.cli.{name}").register(part)
    return typer.main.get_group(part).commands[name]
