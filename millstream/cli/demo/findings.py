"""What the runs of the study find: plain values that travel through Redis as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Mark:
    """One line that somebody should look at: an open task, or a risky construct."""

    path: str
    line: int
    what: str
    text: str
    #: Who wrote the line, and when (epoch seconds); empty and 0 where that is not known.
    who: str = ""
    when: int = 0


@dataclass(frozen=True, slots=True)
class Touched:
    """One file in one commit."""

    path: str
    kind: str
    added: int
    removed: int


@dataclass(frozen=True, slots=True)
class Commit:
    """What a run says of a commit."""

    sha: str
    who: str
    when: int
    subject: str
    #: The largest of its files first; what is left out of the list is in the totals.
    files: list[Touched]
    file_count: int
    added: int
    removed: int
    #: Lines added and removed by kind of file, generated files apart from all others.
    kinds: dict[str, int] = field(default_factory=dict)
    tasks: list[Mark] = field(default_factory=list)
    risks: list[Mark] = field(default_factory=list)
    #: Why somebody should have a second look, in words, the weightiest first.
    reasons: list[str] = field(default_factory=list)
    weight: float = 0.0
    #: Whether the text of the change was read; very large ones are only measured.
    read: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """What a run says of a file."""

    path: str
    kind: str
    lines: int
    blank: int
    #: Length of the longest function in lines, and its name; 0 where none was recognised.
    longest: int = 0
    longest_name: str = ""
    #: How many people the lines are by, as they stand.
    authors: int = 0
    tasks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the newest commit holds."""

    #: Number of files and bytes by kind, and bytes of code and tests by language.
    counts: dict[str, int]
    sizes: dict[str, int]
    languages: dict[str, int]


@dataclass(frozen=True, slots=True)
class History:
    """The whole history that is here, in numbers."""

    commits: int
    #: Whether there was more than was counted.
    cut: bool
    first: int
    last: int
    #: How many people there are; commits of the most active, and commits by day since the epoch.
    people_count: int
    people: dict[str, int]
    days: dict[str, int]


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first run finds: what there is, and what is worth a run of its own."""

    branch: str
    clean: bool
    history: History
    commits: list[str]
    files: list[str]
    contents: Contents
