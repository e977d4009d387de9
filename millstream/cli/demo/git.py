"""Ask git, in a way that changes nothing, opens no pager and speaks one language."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from millstream.errors import UsageError

_NEW = "give one with --repo PATH"


class GitFailed(UsageError):
    """Git answered no, or not in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What is known of a repository before it is studied."""

    path: Path
    #: What to call it.
    name: str
    #: Commits that are no merges, and whose changes can be seen here.
    commits: int
    shallow: bool


def find(path: Path | None) -> Repository:
    """Return the repository around a path, or raise `UsageError` with one line that helps."""
    start = path or Path.cwd()
    if not start.is_dir():
        raise UsageError(f"there is no directory {start}; {_NEW}")
    try:
        top = ask(start, "rev-parse", "--show-toplevel").strip()
    except GitFailed as error:
        if "not a git repository" in str(error):
            raise UsageError(f"{start} is not inside a git repository; {_NEW}") from None
        raise
    if not top:
        raise UsageError(f"{start} is a repository without files to look at; {_NEW}")

    root = Path(top)
    try:
        ask(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except GitFailed:
        raise UsageError(f"{root} has no commit yet; {_NEW}") from None

    shallow = ask(root, "rev-parse", "--is-shallow-repository").strip() == "true"
    return Repository(
        path=root, name=_name(root), commits=len(commits(root, 1000)), shallow=shallow
    )


def commits(repo: Path, most: int) -> list[str]:
    """Return the newest commits, without merges and without those a shallow clone cuts off at."""
    cut = boundary(repo)
    found = ask(repo, "rev-list", "--no-merges", f"--max-count={most + len(cut)}", "HEAD").split()
    return [sha for sha in found if sha not in cut][:most]


def boundary(repo: Path) -> frozenset[str]:
    """Return the commits where a shallow clone ends: they seem to add everything at once."""
    file = Path(ask(repo, "rev-parse", "--git-path", "shallow").strip())
    file = file if file.is_absolute() else repo / file
    return frozenset(file.read_text("ascii").split()) if file.is_file() else frozenset()


def _name(root: Path) -> str:
    """Return what a repository is called where it came from; else the name of its directory."""
    try:
        url = ask(root, "config", "--get", "remote.origin.url").strip()
    except GitFailed:
        url = ""
    name = re.split(r"[/:]", url.rstrip("/").removesuffix(".git"))[-1]
    return name or root.name or "repository"


def ask(repo: Path | str, *arguments: str, limit_s: float = 30.0) -> str:
    """Return what git prints. Raises `GitFailed`."""
    command = ["git", "-C", str(repo), "-c", "core.quotepath=off", *arguments]
    environment = os.environ | {"LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0", "GIT_PAGER": "cat"}
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments of ours
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError("git is not installed; the demo studies a git repository") from None
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {arguments[0]} took longer than {limit_s:g} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise GitFailed(f"git {arguments[0]}: {said[0] if said else 'it failed'}")

    return done.stdout.decode("utf-8", "replace")
