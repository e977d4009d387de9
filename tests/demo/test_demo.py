"""The demo as somebody meets it: a command, a report, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.demo.conftest import Place
from tests.demo.made import Made

#: One after the other: each of them starts half a dozen processes.
pytestmark = [pytest.mark.mcp, pytest.mark.xdist_group("demo")]


def test_a_repository_is_studied_while_a_worker_is_killed(place: Place, made: Made) -> None:
    """The promise of the first page: nothing recorded is done again, and a report comes of it."""
    code, out, err = place.run("--repo", str(made.path))

    assert (code, err) == (0, "")
    assert "SIGKILL to worker" in out
    assert "violations  0 run again" in out
    moved = re.search(r"(\d+) of them moved", out)
    assert moved
    assert int(moved[1]) > 0
    assert "\x1b" not in out
    assert place.leftovers() == []

    report = (place.path / "demo-report.md").read_text("utf-8")
    assert "orchard has 14 commits by 2 people" in report
    assert r"| Bob \| the \*builder\* | 3 |" in report
    assert "| `orchard/apples.py` | `tests/test_apples.py` | 4 of 4 |" in report
    assert "runs text as code (first in orchard/recipes.py, line 3)" in report
    assert "| TODO: do not trust it | `orchard/recipes.py:2` | Bob" in report
    assert "4 of the 7 commits that change code change tests too (57%)" in report
    assert "| **run again after they were recorded** | **0** |" in report
    assert "Merge the side" not in report


@pytest.mark.slow
def test_without_redis_and_without_history(place: Place, made: Made) -> None:
    """A machine with nothing but Python, and a clone that is one commit deep."""
    clone = place.path / "shallow"
    made.git("clone", "--quiet", "--depth=1", made.path.as_uri(), str(clone))
    programs = place.path / "bin"
    programs.mkdir()
    for name in ("git", "setpriv"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)

    code, out, err = place.run(
        *("--json", "--repo", str(clone), "--report", "files.md"), PATH=str(programs)
    )

    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["proof"]["violations"] == []
    assert told["proof"]["moved"] == sorted(told["proof"]["moved"]) != []
    assert told["proof"]["effects"] >= told["proof"]["steps"] + told["proof"]["calls"] > 0
    assert place.leftovers() == []

    report = (place.path / "files.md").read_text("utf-8")
    assert "shallow clone" in report
    assert "fakeredis" in report
    assert "`orchard/recipes.py:2`" in report


@pytest.mark.slow
def test_an_interrupt_clears_the_stage(place: Place, made: Made) -> None:
    """Whoever has seen enough must not find workers running the next day."""
    process = place.start("--repo", str(made.path))
    assert process.stdout
    for line in process.stdout:
        if "to read, one run for each" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (130, "interrupted\n")
    assert place.leftovers() == []
    assert not (place.path / "demo-report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "is not inside a git repository; give one with --repo PATH"),
        (("--repo", "nowhere"), "there is no directory nowhere; give one with --repo PATH"),
        (("--report", "no/such/place.md"), "cannot be written to no/such/place.md"),
    ],
)
def test_what_is_wrong_is_one_line(place: Place, arguments: tuple[str, ...], said: str) -> None:
    """Before anything is started."""
    code, out, err = place.run(*arguments, GIT_CEILING_DIRECTORIES=str(place.path.parent))

    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert place.leftovers() == []


def test_git_that_is_missing_is_named(place: Place) -> None:
    """The one thing that the demo cannot bring along."""
    nowhere = place.path / "empty"
    nowhere.mkdir()

    code, _, err = place.run(PATH=str(nowhere))

    assert code == 2
    assert "git is not installed" in err


def test_a_repository_without_commits_is_named(place: Place) -> None:
    """There is nothing to study in it."""
    Made(place.path / "new")

    code, _, err = place.run("--repo", "new", PATH=os.environ["PATH"])

    assert code == 2
    assert "has no commit yet" in err
    assert not Path(place.path / "demo-report.md").exists()
