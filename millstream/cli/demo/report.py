"""Write the report: what the findings say, in prose and tables that somebody wants to read.

Every number says what it was counted over. A chapter that has nothing to say is one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from millstream.cli.demo import alike, batches, closing, searching, summary
from millstream.cli.demo.findings import Commit
from millstream.cli.demo.kinds import Kind
from millstream.cli.demo.markdown import bars, code, count, listed, table, text
from millstream.cli.demo.play import Played

_PERIOD = {1: "one day", 7: "one week", 30: "30 days"}
_KINDS = {
    Kind.CODE: "code", Kind.TESTS: "tests", Kind.DOCS: "documents",
    Kind.SETUP: "setup and configuration", Kind.DATA: "data and assets",
    Kind.GENERATED: "lock files and vendored code",
}  # fmt: skip


def write(played: Played) -> str:
    """Return the report as Markdown."""
    parts = [
        _what_it_is(played),
        _activity(played, _chapter(played, "activity", summary.Activity)),
    ]
    if played.commits:
        parts += [
            _people(played),
            _hotspots(_chapter(played, "hotspots", list[summary.Hotspot]), len(played.commits)),
            _together(_chapter(played, "together", list[summary.Pair])),
            alike.chapter(_chapter(played, "alike", list[alike.Alike])),
            searching.chapter(_chapter(played, "found", list[searching.Hit])),
            _biggest(_chapter(played, "biggest", list[Commit])),
            _riskiest(_chapter(played, "riskiest", list[Commit]), played.commits),
            _tests(_chapter(played, "tests", summary.Tests)),
        ]
    parts += [
        _tasks(played, _chapter(played, "tasks", summary.Tasks)),
        batches.chapter(played.batches),
        closing.how_it_was_made(played),
    ]
    lines = "\n".join(line for part in parts for line in part)
    return re.sub(r"\n{3,}", "\n\n", lines).rstrip() + "\n"


def _chapter(played: Played, name: str, kind: Any) -> Any:
    return msgspec.convert(played.chapters[name], kind)


def _what_it_is(played: Played) -> Iterator[str]:
    survey, past = played.survey, played.survey.history
    contents = survey.contents
    yield f"# {text(played.repository.name)}: a look at the repository"
    yield ""
    people = count(past.people_count, "person", "people")
    more = "at least " if past.cut else ""
    span = (
        f"on {_day(past.first)}"
        if _day(past.first) == _day(past.last)
        else f"between {_day(past.first)} and {_day(past.last)}"
    )
    where = f" on branch {code(survey.branch)}" if survey.branch else ""
    yield (
        f"{text(played.repository.name)} has {more}{count(past.commits, 'commit')} by {people},"
        f" made {span}{where}."
        f" {'Nothing is uncommitted.' if survey.clean else 'There are uncommitted changes.'}"
    )
    if played.repository.shallow:
        yield (
            "This is a shallow clone: what happened before its oldest commit is not here, and no"
            " number below counts it."
        )
    yield (
        f"The newest commit holds {count(sum(contents.counts.values()), 'file')}"
        f" ({_size(sum(contents.sizes.values()))}){_languages(contents.languages)}."
        f" {count(len(played.commits), 'commit')} and {count(len(played.files), 'file')} were"
        " read for this report, the newest commits and the files that are large and change often."
    )
    yield ""
    yield from table(
        ("What is in it", "files", "size"),
        (
            (_KINDS[Kind(kind)], f"{contents.counts[kind]:,}", _size(contents.sizes[kind]))
            for kind in sorted(contents.counts, key=lambda k: -contents.sizes[k])
        ),
        " rr",
    )


def _activity(played: Played, found: summary.Activity) -> Iterator[str]:
    past = played.survey.history
    period = _PERIOD[found.days]
    yield "## Activity over time"
    yield ""
    if len(found.counts) < 2:
        yield f"All {count(past.commits, 'commit')} were made within {period}."
        yield ""
        return

    yield "```text"
    yield f"{_day(found.starts[0])}  {bars(found.counts)}  {_day(past.last)}"
    yield "```"
    busiest = max(range(len(found.counts)), key=lambda at: found.counts[at])
    quiet = sum(not commits for commits in found.counts)
    yield (
        f"One bar is {period}. The busiest began on {_day(found.starts[busiest])}"
        f" with {count(found.counts[busiest], 'commit')};"
        f" {'none was' if not quiet else f'{quiet} of {len(found.counts)} were'} without any."
    )
    top = [f"{text(who)} ({n:,})" for who, n in _ranked(past.people)[:5]]
    if past.people_count > 1:
        yield f"Over all time, most commits are by {listed(top)}."
    yield ""


def _people(played: Played) -> Iterator[str]:
    people = _chapter(played, "people", list[summary.Person])
    areas = _chapter(played, "areas", list[summary.Area])
    yield "## Who works where"
    yield ""
    yield f"In the {count(len(played.commits), 'newest commit')} (merges left out):"
    yield ""
    yield from table(
        ("Who", "commits", "lines +/-", "mostly in"),
        (
            (
                text(person.name), f"{person.commits}",
                f"+{person.added:,} -{person.removed:,}",
                ", ".join(f"{code(area)} {part:.0%}" for area, part in person.areas if part >= 0.1),
            )
            for person in people
        ),
        " rr",
    )  # fmt: skip
    alone = [area for area in areas if len(area.people) == 1 and area.commits >= 3]
    if len(people) > 1 and alone:
        named = listed([f"{code(area.name)} ({text(area.people[0])})" for area in alone[:4]])
        yield f"Only one person has touched {named} in these commits."
        yield ""
    elif len(people) == 1:
        yield "It is the work of one person so far; nobody else has touched any part of it."
        yield ""


def _hotspots(spots: Sequence[summary.Hotspot], commits: int) -> Iterator[str]:
    yield "## Hotspots"
    yield ""
    if not spots:
        yield "No source file was changed in the commits that were read."
        yield ""
        return

    yield (
        "Files that are long and change often are where mistakes are made, and where time spent on"
        f" tidying pays. Ranked by the number of the {count(commits, 'commit')} that changed them,"
        " times their length:"
    )
    yield ""
    yield from table(
        ("File", "changes", "lines changed", "lines now", "authors", "longest function"),
        (
            (
                code(spot.path), f"{spot.commits}", f"{spot.changed:,}", f"{spot.lines:,}",
                f"{spot.people or '?'}",
                f"{code(spot.longest_name)}, {count(spot.longest, 'line')}" if spot.longest else "",
            )
            for spot in spots
        ),
        " rrrr",
    )  # fmt: skip


def _together(pairs: Sequence[summary.Pair]) -> Iterator[str]:
    yield "## Files that change together"
    yield ""
    if not pairs:
        yield "No two files changed together often enough to call it a habit."
        yield ""
        return

    yield (
        "Whoever changes the one should look at the other. Counted are commits of up to 25 files"
        " that changed both, out of those that changed the less busy of the two:"
    )
    yield ""
    yield from table(
        ("One", "other", "together"),
        ((code(p.one), code(p.other), f"{p.together} of {p.of}") for p in pairs),
        "  r",
    )


def _biggest(commits: Sequence[Commit]) -> Iterator[str]:
    yield "## The biggest commits"
    yield ""
    yield from table(
        ("Commit", "when", "who", "files", "lines +/-"),
        (
            (
                f"{code(c.sha[:8])} {text(c.subject, 80)}", _day(c.when), text(c.who),
                f"{c.file_count}", f"+{c.added:,} -{c.removed:,}",
            )
            for c in commits
        ),
        "   rr",
    )  # fmt: skip


def _riskiest(commits: Sequence[Commit], read: Sequence[Commit]) -> Iterator[str]:
    yield "## Commits that deserve a second look"
    yield ""
    if not commits:
        yield f"None of the {count(len(read), 'commit')} that were read stands out."
        yield ""
        return

    yield "Not because they are wrong, but because mistakes hide well in changes like these:"
    yield ""
    for commit in commits:
        yield (
            f"- {code(commit.sha[:8])} **{text(commit.subject, 90)}** ({text(commit.who)},"
            f" {_day(commit.when)}): {text('; '.join(commit.reasons), 400)}."
        )
    measured = sum(not commit.read for commit in read)
    if measured:
        yield ""
        yield (
            f"{count(measured, 'commit')} of the {len(read)} "
            f"{'was' if measured == 1 else 'were'} too large to be read line by line, and only"
            " measured."
        )
    yield ""


def _tests(found: summary.Tests) -> Iterator[str]:
    yield "## Tests"
    yield ""
    if not found.code:
        yield "None of the commits that were read changes code."
        yield ""
        return

    yield (
        f"{found.with_tests} of the {count(found.code, 'commit')} that change code change tests too"
        f" ({found.with_tests / found.code:.0%}).{_trend(found)}"
    )
    if found.without:
        yield "The largest changes of code without a test:"
        yield ""
        for commit in found.without:
            lines = count(commit.kinds[Kind.CODE], "line")
            yield f"- {code(commit.sha[:8])} {text(commit.subject, 90)}: {lines} of code"
    yield ""


def _trend(found: summary.Tests) -> str:
    (old, of_old), (new, of_new) = found.older, found.newer
    if of_old < 5:
        return ""
    before, after = old / of_old, new / of_new
    if abs(before - after) < 0.1:
        return " The older and the newer half of them hardly differ."
    word = "more" if after > before else "less"
    return (
        f" It has become {word} of a habit: {before:.0%} in the older half of them,"
        f" {after:.0%} in the newer."
    )


def _tasks(played: Played, found: summary.Tasks) -> Iterator[str]:
    yield "## What was left for later"
    yield ""
    if not found.total:
        yield f"No TODO or FIXME stands in the {count(len(played.files), 'file')} that were read."
    else:
        yield f"{count(found.total, 'open note')} in the files that were read, the oldest first:"
        yield ""
        yield from table(
            ("Note", "where", "who", "since"),
            (
                (
                    f"{task.what}: {text(task.text, 90)}", code(f"{task.path}:{task.line}"),
                    text(task.who) or "?", _day(task.when) if task.when else "?",
                )
                for task in found.open
            ),
        )  # fmt: skip
    if found.added:
        yield f"The commits that were read added {count(found.added, 'such note')}."
    yield ""


def _languages(languages: dict[str, int]) -> str:
    total = sum(languages.values())
    if not total:
        return ""
    shares = [
        f"{name} {size / total:.0%}" for name, size in _ranked(languages) if 50 * size >= total
    ]
    return f", with code in {listed(shares[:5])}"


def _ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    # JSON objects come back in the order of their names.
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _size(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    return f"{number / 1000:,.0f} kB" if number < 10**6 else f"{number / 10**6:,.1f} MB"


def _day(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "?"
