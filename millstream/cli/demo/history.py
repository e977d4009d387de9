"""Steps that ask git itself: what the MCP server has no tool for."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from millstream.cli.demo import git, reading
from millstream.cli.demo.effects import counted
from millstream.cli.demo.findings import Commit, Contents, History, Source, Touched
from millstream.cli.demo.kinds import Kind, kind_of, language_of

_DAY_S = 86_400
#: Bounds that keep the study of a very large repository short.
_MOST_COMMITS = 50_000
_MOST_FILES = 40
_BLAME_S = 15.0


@counted
def whole_history(repo: str) -> History:
    """Count the commits of all time by person and by day."""
    out = git.ask(repo, "log", f"--max-count={_MOST_COMMITS}", "--format=%at%x09%aN", "HEAD")
    rows = [line.partition("\t") for line in out.splitlines()]
    times = [int(when) for when, _, _ in rows]
    days = Counter(when // _DAY_S for when in times)
    people = Counter(who for _, _, who in rows)
    return History(
        commits=len(rows),
        cut=len(rows) == _MOST_COMMITS,
        first=min(times),
        last=max(times),
        people_count=len(people),
        people=dict(people.most_common(20)),
        days={str(day): count for day, count in sorted(days.items())},
    )


@counted
def newest_commits(repo: str, most: int) -> list[str]:
    """Return the newest commits that can be studied."""
    return git.commits(Path(repo), most)


@counted
def what_there_is(repo: str) -> Contents:
    """Count the files of the newest commit, and their bytes."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    for path, size in _files(repo):
        kind = kind_of(path)
        counts[kind] += 1
        sizes[kind] += size
        language = language_of(path)
        if language and kind in {Kind.CODE, Kind.TESTS}:
            languages[language] += size
    return Contents(dict(counts), dict(sizes), dict(languages.most_common(8)))


@counted
def files_worth_reading(repo: str, shas: list[str], most: int, largest: int) -> list[str]:
    """Choose the files that change often and are large; without a history, the largest."""
    changes: Counter[str] = Counter()
    for sha in shas:
        names = git.ask(
            repo, "diff-tree", "-r", "--root", "--no-commit-id", "--name-only", "-z", sha
        )
        changes.update(names.split("\0"))
    sizes = {
        path: size
        for path, size in _files(repo)
        if kind_of(path) in {Kind.CODE, Kind.TESTS, Kind.SETUP, Kind.DOCS} and 0 < size <= largest
    }
    code = {path for path in sizes if kind_of(path) is Kind.CODE}

    def worth(path: str) -> float:
        return (changes[path] + 0.5) * sizes[path] * (3 if path in code else 1)

    ranked = sorted(sizes, key=lambda path: (-worth(path), path))
    fitting = (path for path in ranked if _fits(repo, [f"HEAD:{path}"], largest))
    return list(itertools.islice(fitting, most))


@counted
def measure(repo: str, sha: str, largest: int) -> Commit:
    """Measure a commit, and find out whether its text is small enough to be read."""
    head = git.ask(repo, "show", "--no-patch", "--format=%aN%n%at%n%s", sha)
    who, when, subject = head.split("\n", 2)
    files = _numbers(git.ask(repo, "show", "--format=", "--numstat", "-z", "-M", sha))
    files.sort(key=lambda touched: -(touched.added + touched.removed))
    own = [touched for touched in files if touched.kind != Kind.GENERATED]
    return Commit(
        sha=sha,
        who=who,
        when=int(when),
        subject=subject.strip()[:200] or "(no subject)",
        files=files[:_MOST_FILES],
        file_count=len(files),
        added=sum(touched.added for touched in own),
        removed=sum(touched.removed for touched in own),
        kinds=reading.by_kind(files),
        read=_fits(repo, ["--format=", "-p", "-M", sha], largest),
    )


@counted
def ask_for_authors(repo: str, source: Source) -> Source:
    """Ask who wrote each line, and when; a history that takes too long is left out."""
    try:
        out = git.ask(
            repo, "blame", "--line-porcelain", "HEAD", "--", source.path, limit_s=_BLAME_S
        )
    except git.GitFailed:
        return source

    authors = _blamed(out)
    return replace(
        source,
        authors=len({who for who, _ in authors}),
        tasks=[
            replace(task, who=authors[task.line - 1][0], when=authors[task.line - 1][1])
            for task in source.tasks
            if task.line <= len(authors)
        ],
    )


def _files(repo: str) -> Iterator[tuple[str, int]]:
    for row in git.ask(repo, "ls-tree", "-r", "-l", "-z", "HEAD").split("\0"):
        facts, _, path = row.partition("\t")
        size = facts.split()[-1] if facts else "-"
        if size.isdigit():  # a submodule has none
            yield path, int(size)


def _numbers(out: str) -> list[Touched]:
    """Read ``--numstat -z``: a rename has its two paths in fields of their own."""
    fields = iter(out.strip("\n").split("\0"))
    found = []
    for entry in fields:
        if entry.count("\t") < 2:
            continue
        added, removed, path = entry.lstrip("\n").split("\t", 2)
        if not path:
            next(fields)
            path = next(fields)
        # Binary files have no lines.
        counts = (int(n) if n.isdigit() else 0 for n in (added, removed))
        found.append(Touched(path, kind_of(path), *counts))
    return found


def _fits(repo: str, shown: Sequence[str], largest: int) -> bool:
    """Whether what git shows has at most so many bytes as JSON; no more than that is looked at."""
    command = ["git", "-C", repo, "show", "--no-ext-diff", *shown]
    with subprocess.Popen(  # noqa: S603 - git, with arguments of ours
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        text = process.stdout.read(largest + 1)
        process.kill()
    return 0 < len(msgspec.json.encode(text.decode("utf-8", "replace"))) <= largest


def _blamed(out: str) -> list[tuple[str, int]]:
    """Return (who, when) for every line."""
    found = []
    who, when = "", 0
    for line in out.split("\n"):
        if line.startswith("author "):
            who = line[7:]
        elif line.startswith("author-time "):
            when = int(line[12:])
        elif line.startswith("\t"):
            found.append((who, when))
    return found
