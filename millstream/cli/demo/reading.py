"""Read what changed and what is there: from text to findings. Pure functions.

The patterns are few, and each names something that a reviewer would stop at. They look at added
lines of code only; tests and documents may do what they like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from millstream.cli.demo.findings import Commit, Mark, Touched
from millstream.cli.demo.kinds import Kind, kind_of, language_of

_TASK = re.compile(
    r"(?:#|//|/\*|^\s*\*|--|;|%|<!--)\s*(?:[@!]\s*)?(TODO|FIXME|HACK|XXX)\b(?=[:( ]):?(.*)"
)

#: What is risky -> how much a second look is worth for it, and the pattern. Written so that this
#: table does not find itself.
_RISKS: Mapping[str, tuple[float, re.Pattern[str]]] = {
    what: (weight, re.compile(pattern))
    for what, weight, pattern in (
        ("runs text as code", 2.0, r"(?<![\w.])(?:eval|exec)\((?!\))|new Function\("),
        ("builds a shell command", 2.0, r"shell\s?=\s?True|os\.system\(|child_process\.exec\("),
        ("unpickles data", 1.2, r"pickle\.loads?\(|yaml\.load\((?!.*Safe)|marshal\.loads?\("),
        ("skips certificate checks", 2.0, r"verify\s?=\s?False|InsecureSkipVerify:\s?true"),
        ("swallows every error", 1.2, r"except\s?:\s*(?:pass)?$|catch\s?\([^)]*\)\s?\{\s*\}"),
        (
            "switches a checker off",
            0.4,
            r"#\s?type:\s?ignore(?!\[)|@ts-[i]gnore|eslint-[d]isable|//[n]olint",
        ),
        ("may hold a secret", 3.0, r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|ghp_\w{36}"),
        (
            "may hold a password",
            2.0,
            r"(?i)\b(?:password|api_?key|secret)\s?=\s?['\"][^'\"{$<]{8,}['\"]",
        ),
        (
            "writes HTML unescaped",
            1.5,
            r"dangerouslySet[I]nnerHTML|\.innerHTML\s?=|\|\s?safe\s?\}\}",
        ),
        ("builds SQL from text", 2.0, r"(?i)execute\(\s?f['\"]"),
        ("leaves memory safety", 1.2, r"\bunsafe\s?\{|\bunsafe\.Pointer|\bstrcpy\(|\bgets\("),
        ("uses a weak hash", 0.6, r"\b(?:md5|sha1)\("),
        ("opens files to everybody", 1.5, r"chmod\(?\s?0?o?777|0o77[7]"),
    )
}
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_FUNCTION = re.compile(
    r"^(?P<indent>\s*)(?:(?:async\s+)?def\s+(?P<py>\w+)|(?:export\s+)?(?:async\s+)?function\*?\s+"
    r"(?P<js>\w+)|func\s+(?:\([^)]*\)\s*)?(?P<go>\w+)|(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?fn\s+(?P<rs>\w+))"
)
#: The most marks that one run reports, and how much of a line.
_MOST, _WIDEST = 12, 120


def added_lines(patch: str) -> Iterator[tuple[str, int, str]]:
    """Yield (path, line number, text) of every line that a patch adds."""
    path, number, old, new = "", 0, 0, 0
    for line in patch.split("\n"):
        if old > 0 or new > 0:
            # Within a hunk: whatever a line looks like, it is content.
            if line.startswith("+"):
                yield path, number, line[1:]
            old -= not line.startswith(("+", "\\"))
            new -= not line.startswith(("-", "\\"))
            number += not line.startswith(("-", "\\"))
        elif hunk := _HUNK.match(line):
            old, new = int(hunk[1] or 1), int(hunk[3] or 1)
            number = int(hunk[2])
        elif line.startswith("+++ "):
            path = line[4:].strip().removeprefix("b/")


def tasks(lines: Iterable[tuple[str, int, str]]) -> list[Mark]:
    """Return the open tasks that are noted in comments of code, tests and setup."""
    found = []
    for path, number, text in lines:
        if kind_of(path) in {Kind.CODE, Kind.TESTS, Kind.SETUP} and (task := _TASK.search(text)):
            found.append(Mark(path, number, task[1], task[2].strip(" :-*/>")[:_WIDEST]))
    return found[:_MOST]


def risks(lines: Iterable[tuple[str, int, str]]) -> list[Mark]:
    """Return the added lines of code at which a reviewer would stop."""
    found = []
    for path, number, text in lines:
        if kind_of(path) is not Kind.CODE or text.lstrip().startswith(("#", "//", "*", '"', "'")):
            continue
        for what, (_, pattern) in _RISKS.items():
            if pattern.search(text):
                found.append(Mark(path, number, what, text.strip()[:_WIDEST]))
                break
    return found[:_MOST]


def longest_function(path: str, text: str) -> tuple[int, str]:
    """Return the length and the name of the longest function: by indentation, so roughly."""
    if language_of(path) not in {"Python", "JavaScript", "TypeScript", "Go", "Rust"}:
        return 0, ""

    longest, name = 0, ""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        head = _FUNCTION.match(line)
        if head:
            length = _until_dedent(lines, at, len(head["indent"]))
            if length > longest:
                longest = length
                name = next(n for n in head.groups()[1:] if n)
    return longest, name


def _until_dedent(lines: list[str], start: int, indent: int) -> int:
    last = start
    for at in range(start + 1, len(lines)):
        bare = lines[at].lstrip()
        if bare and len(lines[at]) - len(bare) <= indent and not bare.startswith((")", "]", "{")):
            # A closing brace belongs to the function that it closes.
            return (at if bare.startswith("}") else last) - start + 1
        last = at if bare else last
    return last - start + 1


def weigh(commit: Commit) -> tuple[float, list[str]]:
    """Return how much a second look is worth, and why, in words."""
    code = commit.kinds.get(Kind.CODE, 0)
    areas = {touched.path.rpartition("/")[0] for touched in commit.files}
    found = []
    if commit.risks:
        worst = sorted(commit.risks, key=lambda mark: -_RISKS[mark.what][0])
        found.append((_RISKS[worst[0].what][0], _named(worst)))
    if code >= 400:
        found.append((1 + code / 1000, f"{code:,} lines of code in one commit"))
    if code >= 40 and not commit.kinds.get(Kind.TESTS):
        found.append((1 + min(code, 1000) / 500, f"changes {code:,} lines of code and no test"))
    if len(areas) >= 8:
        found.append((1.0, f"spreads over {len(areas)} directories"))
    if code and commit.removed >= 200 and commit.removed > 3 * commit.added:
        found.append((0.8, f"removes {commit.removed:,} lines and adds {commit.added:,}"))
    if re.search(r"(?i)\b(hack|quick ?fix|workaround|wip|temporary|revert)\b", commit.subject):
        found.append((0.8, "says itself that it is provisional, or takes something back"))
    if commit.tasks:
        found.append((0.4, f"leaves {_count(len(commit.tasks), 'open task')} behind"))

    found.sort(key=lambda reason: -reason[0])
    return round(sum(weight for weight, _ in found), 2), [words for _, words in found]


def by_kind(files: Iterable[Touched]) -> dict[str, int]:
    """Return the lines changed by kind of file."""
    totals: dict[str, int] = {}
    for touched in files:
        totals[touched.kind] = totals.get(touched.kind, 0) + touched.added + touched.removed
    return totals


def _named(marks: list[Mark]) -> str:
    names = list(dict.fromkeys(mark.what for mark in marks))
    return f"{' and '.join(names[:2])} (first in {marks[0].path}, line {marks[0].line})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
