"""Put findings together: who, where, how often, what goes with what. Pure functions, one a step.

Each returns rows for a table of the report, in the order in which they are worth reading, and
never more than somebody reads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations

from millstream.cli.demo.effects import counted
from millstream.cli.demo.findings import Commit, History, Mark, Source
from millstream.cli.demo.kinds import Kind, area_of

#: A commit with more files says nothing about which of them belong together.
_WIDE = 25
_PERIODS = ((120, 1), (800, 7), (10**9, 30))


@dataclass(frozen=True, slots=True)
class Person:
    """Where somebody works."""

    name: str
    commits: int
    added: int
    removed: int
    #: Parts of the repository, the one with most changed lines first, with their share.
    areas: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Area:
    """Who works on a part of the repository."""

    name: str
    commits: int
    lines: int
    people: list[str]


@dataclass(frozen=True, slots=True)
class Hotspot:
    """A file that is large and changes often."""

    path: str
    commits: int
    changed: int
    lines: int
    people: int
    longest: int
    longest_name: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files that change together."""

    one: str
    other: str
    together: int
    #: How many commits changed the one of them that changes less often.
    of: int


@dataclass(frozen=True, slots=True)
class Tests:
    """Whether changes of code come with changes of tests."""

    code: int
    with_tests: int
    #: The same for the older half of the commits, and for the newer.
    older: tuple[int, int]
    newer: tuple[int, int]
    #: The largest changes of code without a test.
    without: list[Commit]


@dataclass(frozen=True, slots=True)
class Activity:
    """Commits over time, from the first to the last."""

    #: Days of one period, and the commits of each period.
    days: int
    counts: list[int]
    #: Start of each period in epoch seconds.
    starts: list[int]


@dataclass(frozen=True, slots=True)
class Tasks:
    """Open tasks in the files that were read, and how many the studied commits added."""

    open: list[Mark]
    total: int
    added: int


@counted
def people(commits: list[Commit]) -> list[Person]:
    """Return who made the commits, and where."""
    own: dict[str, list[Commit]] = defaultdict(list)
    for commit in commits:
        own[commit.who].append(commit)

    found = []
    for name, mine in own.items():
        areas: Counter[str] = Counter()
        for commit in mine:
            for touched in commit.files:
                if touched.kind != Kind.GENERATED:
                    areas[area_of(touched.path)] += touched.added + touched.removed
        total = sum(areas.values()) or 1
        shares = [(area, round(lines / total, 3)) for area, lines in areas.most_common(3)]
        added, removed = sum(c.added for c in mine), sum(c.removed for c in mine)
        found.append(Person(name, len(mine), added, removed, shares))
    found.sort(key=lambda person: (-person.commits, -person.added, person.name))
    return found[:12]


@counted
def areas(commits: list[Commit]) -> list[Area]:
    """Return the parts that were worked on, and by whom."""
    counts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    authors: dict[str, Counter[str]] = defaultdict(Counter)
    for commit in commits:
        here = [each for each in commit.files if each.kind != Kind.GENERATED]
        for area in {area_of(each.path) for each in here}:
            counts[area] += 1
            authors[area][commit.who] += 1
        for each in here:
            lines[area_of(each.path)] += each.added + each.removed

    return [
        Area(name, count, lines[name], [who for who, _ in authors[name].most_common()])
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], -lines[item[0]]))
    ][:10]


@counted
def hotspots(commits: list[Commit], files: list[Source]) -> list[Hotspot]:
    """Return the files that are large and change often: where bugs live, if they live anywhere."""
    changes: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for commit in commits:
        for touched in commit.files:
            changes[touched.path] += 1
            changed[touched.path] += touched.added + touched.removed

    found = [
        Hotspot(
            path=source.path,
            commits=changes[source.path],
            changed=changed[source.path],
            lines=source.lines,
            people=source.authors,
            longest=source.longest,
            longest_name=source.longest_name,
        )
        for source in files
        if source.kind == Kind.CODE and changes[source.path]
    ]
    found.sort(key=lambda spot: (-spot.commits * spot.lines, spot.path))
    return found[:10]


@counted
def together(commits: list[Commit]) -> list[Pair]:
    """Return the pairs of files that nearly always change in the same commit."""
    alone: Counter[str] = Counter()
    both: Counter[tuple[str, str]] = Counter()
    for commit in commits:
        if commit.file_count > _WIDE:
            continue
        paths = sorted({t.path for t in commit.files if t.kind != Kind.GENERATED})
        alone.update(paths)
        both.update(combinations(paths, 2))

    found = [
        Pair(one, other, count, min(alone[one], alone[other]))
        for (one, other), count in both.items()
        if count >= 3 and count >= 0.6 * min(alone[one], alone[other])
    ]
    found.sort(key=lambda pair: (-pair.together, pair.of, pair.one, pair.other))
    return found[:10]


@counted
def biggest(commits: list[Commit]) -> list[Commit]:
    """Return the commits that changed most, what programs wrote left out."""
    found = [commit for commit in commits if commit.added + commit.removed]
    return sorted(found, key=lambda commit: -(commit.added + commit.removed))[:5]


@counted
def riskiest(commits: list[Commit]) -> list[Commit]:
    """Return the commits that deserve a second look most."""
    found = [commit for commit in commits if commit.reasons and commit.weight >= 1]
    return sorted(found, key=lambda commit: (-commit.weight, -commit.when))[:6]


@counted
def tests(commits: list[Commit]) -> Tests:
    """Return how often a change of code came with a change of tests."""
    code = [commit for commit in commits if commit.kinds.get(Kind.CODE)]
    code.sort(key=lambda commit: commit.when)
    half = len(code) // 2
    without = [commit for commit in code if not commit.kinds.get(Kind.TESTS)]
    without.sort(key=lambda commit: -commit.kinds[Kind.CODE])
    return Tests(
        code=len(code),
        with_tests=_tested(code),
        older=(_tested(code[:half]), half),
        newer=(_tested(code[half:]), len(code) - half),
        without=without[:4],
    )


@counted
def tasks(commits: list[Commit], files: list[Source]) -> Tasks:
    """Return the open tasks, the oldest first: those are the ones that were forgotten."""
    found = [task for source in files for task in source.tasks]
    found.sort(key=lambda task: (task.when or 2**40, task.path, task.line))
    return Tasks(found[:12], len(found), sum(len(commit.tasks) for commit in commits))


@counted
def activity(history: History) -> Activity:
    """Return the commits by day, week or month, whichever the length of the history asks for."""
    first, last = history.first // 86_400, history.last // 86_400
    span = last - first + 1
    days = next(days for longest, days in _PERIODS if span <= longest)
    counts = [0] * (span // days + (span % days > 0))
    for day, count in history.days.items():
        counts[(int(day) - first) // days] += count

    # The newest 80 periods: a line of text.
    starts = [(first + number * days) * 86_400 for number in range(len(counts))]
    return Activity(days, counts[-80:], starts[-80:])


def _tested(commits: list[Commit]) -> int:
    return sum(bool(commit.kinds.get(Kind.TESTS)) for commit in commits)
