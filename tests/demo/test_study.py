"""What is read out of changes and files, and how it is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.cli.demo import git, history, reading, summary
from millstream.cli.demo.findings import Commit, History, Touched
from millstream.cli.demo.kinds import Kind, kind_of
from millstream.cli.demo.markdown import bars, code, text
from tests.demo.made import Made

PATCH = """commit 0

--- a/src/app.py
+++ b/src/app.py
@@ -1,2 +1,4 @@
 import os
+++ counter
+result = eval(line)  # TODO(ada): no
-old
+x = 1
--- /dev/null
+++ b/docs/a.md
@@ -0,0 +1 @@
+eval(is fine here)
"""


def test_added_lines_have_their_numbers() -> None:
    """A number that is off by one sends the reader to the wrong line."""
    found = list(reading.added_lines(PATCH))

    assert ("src/app.py", 3, "result = eval(line)  # TODO(ada): no") in found
    assert ("src/app.py", 4, "x = 1") in found
    assert found[-1] == ("docs/a.md", 1, "eval(is fine here)")


def test_marks_are_found_in_code_alone() -> None:
    """Documents may talk about anything."""
    lines = list(reading.added_lines(PATCH))

    assert [(m.path, m.line, m.what) for m in reading.risks(lines)] == [
        ("src/app.py", 3, "runs text as code")
    ]
    assert [(m.what, m.text) for m in reading.tasks(lines)] == [("TODO", "(ada): no")]


def test_the_patterns_do_not_find_themselves() -> None:
    """A study of this repository must not report the study."""
    source = Path(reading.__file__).read_text("utf-8")

    assert reading.risks(("x.py", n, line) for n, line in enumerate(source.split("\n"))) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("src/app.py", Kind.CODE),
        ("tests/test_app.py", Kind.TESTS),
        ("web/button.spec.ts", Kind.TESTS),
        ("app_test.go", Kind.TESTS),
        ("docs/how.md", Kind.DOCS),
        ("requirements.txt", Kind.SETUP),
        (".github/workflows/ci.yml", Kind.SETUP),
        ("package-lock.json", Kind.GENERATED),
        ("vendor/lib/a.go", Kind.GENERATED),
        ("logo.png", Kind.DATA),
        ("contest.py", Kind.CODE),
    ],
)
def test_a_file_is_known_by_its_path(path: str, kind: Kind) -> None:
    """Every count of the report rests on this."""
    assert kind_of(path) is kind


def test_the_longest_function_is_found() -> None:
    """In languages with braces and without."""
    python = (
        "def short():\n    pass\n\n\ndef long(\n    a,\n):\n    x = 1\n\n    return x\n\n\nY = 1\n"
    )
    go = "func a() {\n\treturn\n}\n\nfunc b() {\n\tx()\n\ty()\n}\n"

    assert reading.longest_function("a.py", python) == (6, "long")
    assert reading.longest_function("a.go", go) == (4, "b")
    assert reading.longest_function("a.txt", python) == (0, "")


def test_a_rename_is_one_file(made: Made) -> None:
    """With its new name and the lines that really changed."""
    made.git("mv", "orchard/apples.py", "orchard/fruit.py")
    sha = made.commit("Ada", "Rename", {"binary.dat": "\0\1"})

    commit = history.measure(str(made.path), sha, 100_000)

    assert {(t.path, t.added, t.removed) for t in commit.files} == {
        ("orchard/fruit.py", 0, 0),
        ("binary.dat", 0, 0),
    }
    assert (commit.who, commit.subject, commit.read) == ("Ada", "Rename", True)


def test_a_commit_without_a_subject_has_a_name(made: Made) -> None:
    """Git allows it."""
    made.git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "")

    assert history.measure(str(made.path), "HEAD", 1000).subject == "(no subject)"


def test_a_large_commit_is_only_measured(made: Made) -> None:
    """Its text would not fit into a journal."""
    sha = made.commit("Ada", "Much", {"much.txt": "word\n" * 1000})

    commit = history.measure(str(made.path), sha, 1000)

    assert (commit.added, commit.read) == (1000, False)


def test_a_shallow_clone_is_seen_as_one(made: Made, tmp_path: Path) -> None:
    """Its oldest commit seems to add everything, and is left out."""
    clone = tmp_path / "clone"
    made.git("checkout", "--quiet", "--detach", "HEAD^1")
    made.git("clone", "--quiet", "--depth=3", "--branch=side", made.path.as_uri(), str(clone))

    found = git.find(clone)

    assert (found.shallow, found.commits, found.name) == (True, 2, "orchard")


def test_commits_without_tests_are_counted() -> None:
    """Only those that change code are asked for tests."""
    commits = [_commit({Kind.CODE: 5, Kind.TESTS: 1}), _commit({Kind.CODE: 3}), _commit({})]

    found = summary.tests(commits)

    assert (found.code, found.with_tests, len(found.without)) == (2, 1, 1)


def test_a_commit_is_weighed_in_words() -> None:
    """A number alone convinces nobody."""
    risk = reading.risks([("a.py", 7, "eval(text)")])
    commit = _commit({Kind.CODE: 500}, risks=risk)

    weight, reasons = reading.weigh(commit)

    assert weight > 3
    assert reasons[0] == "runs text as code (first in a.py, line 7)"
    assert "changes 500 lines of code and no test" in reasons


@pytest.mark.parametrize(("span", "days"), [(0, 1), (119, 1), (120, 7), (4000, 30)])
def test_the_period_fits_the_history(span: int, days: int) -> None:
    """A line of bars is read at a glance, or not at all."""
    past = History(2, False, 0, span * 86_400, 1, {"Ada": 2}, {"0": 1, str(span): 1})

    found = summary.activity(past)

    assert found.days == days
    assert len(found.counts) <= max(120, 80)
    assert found.counts[-1]


def test_markdown_shows_what_it_is_given() -> None:
    """A commit's subject must not become a heading, a link or a cell."""
    assert text("a | *b* <i> `c`\n# [d](e)") == r"a \| \*b\* \<i\> \`c\` \# \[d\](e)"
    assert code("a|b`c") == r"`` a\|b`c ``"
    assert bars([0, 1, 8]) == "·▁█"


def _commit(kinds: dict[str, int], **fields: object) -> Commit:
    files = [Touched("a.py", Kind.CODE, 1, 0)]
    commit = Commit("0" * 40, "Ada", 0, "Do", files, 1, 1, 0, kinds)
    for name, value in fields.items():
        object.__setattr__(commit, name, value)
    return commit
