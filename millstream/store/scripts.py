"""Load the Lua scripts and call them by name.

The comment at the top of a script is its contract, and is read here: which fragments it uses,
and how many fixed arguments it takes, so that a call that does not fit fails before anything is
sent. Scripts are addressed by their hash, so that old and new ones live side by side while a
fleet is being upgraded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol, runtime_checkable

from redis.exceptions import NoScriptError

from millstream.errors import UsageError

Argument = str | bytes | int


class Executes(Protocol):
    """A Redis client, as far as scripts need one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command and return its reply."""


@runtime_checkable
class ExecutesTogether(Protocol):
    """A client that can send several commands at once."""

    async def execute_together(self, *commands: tuple[Any, ...]) -> Sequence[Any]:
        """Send commands in one packet; return their replies, or the error in place of one."""


class Keyed(Protocol):
    """What a script works on, such as a lane."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it is given, all in one slot."""


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script, with the fragments it uses in front."""

    name: str
    body: bytes
    sha: str
    #: Names of the fixed arguments.
    args: tuple[str, ...]
    #: Whether more arguments may follow.
    open_ended: bool

    @classmethod
    def load(cls, name: str) -> Script:
        """Read ``lua/<name>.lua``."""
        source = _read(name)
        header = [line[2:].split() for line in source.splitlines() if line.startswith("--")]
        args = [words[1] for words in header if words[:1] == ["ARGV"]]
        uses = [_read(part) for words in header if words[:1] == ["USES"] for part in words[1:]]
        body = "\n".join(_without_comments(text) for text in [*uses, source]).encode()
        return cls(
            name=name,
            body=body,
            sha=hashlib.sha1(body, usedforsecurity=False).hexdigest(),
            args=tuple(arg for arg in args if arg != "..."),
            open_ended="..." in args,
        )

    def arguments(self, on: Keyed, args: Sequence[Argument]) -> list[Argument]:
        """Return what follows the script in the command, or raise `UsageError`."""
        fits = len(args) >= len(self.args) if self.open_ended else len(args) == len(self.args)
        if not fits:
            raise UsageError(f"script {self.name} takes {self.args}, got {len(args)} arguments")

        return [len(on.keys), *on.keys, *args]


@cache
def script(name: str) -> Script:
    """Return the script of this name; read once a process."""
    return Script.load(name)


async def call(client: Executes, name: str, on: Keyed, args: Sequence[Argument]) -> Any:
    """Run a script and return its reply, sending its text where the server lacks it."""
    found = script(name)
    rest = found.arguments(on, args)
    try:
        return await client.execute_command("EVALSHA", found.sha, *rest)
    except NoScriptError:
        return await client.execute_command("EVAL", found.body, *rest)


async def call_behind(  # noqa: PLR0917 - a command and a call
    client: Executes,
    command: Sequence[Argument],
    scripts: Executes,
    name: str,
    on: Keyed,
    args: Sequence[Argument],
) -> tuple[Any, Any]:
    """Send a command, and a script in the same packet behind it; return both replies.

    Where a client cannot do that, the script is called once the command has brought something. The
    reply to the script is None where it was not executed; why is found out by who calls it again.
    """
    if not isinstance(client, ExecutesTogether):
        reply = await client.execute_command(*command)
        return reply, await call(scripts, name, on, args) if reply else None

    found = script(name)
    behind = ("EVALSHA", found.sha, *found.arguments(on, args))
    reply, answer = await client.execute_together(tuple(command), behind)
    if isinstance(reply, Exception):
        raise reply
    return reply, None if isinstance(answer, Exception) else answer


def _without_comments(text: str) -> str:
    """Return what a server has to know of a script, its lines where they were, not indented.

    Every server is sent every text once by every process that finds it missing.
    """
    lines = (line.strip() for line in text.splitlines())
    return "\n".join("" if line.startswith("--") else line for line in lines)


def _read(name: str) -> str:
    file = resources.files("millstream.store").joinpath("lua", f"{name}.lua")
    return file.read_text("utf-8")
