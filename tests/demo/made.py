"""A small repository with a known history, for the demo to study."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_EPOCH = 1_700_000_000
_DAY = 86_400
_RECIPES = "def read(text):\n    # TODO: do not trust it\n    return eval(text)\n"


class Made:
    """A repository that is written commit by commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._commits = 0
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, who: str = "Ada", when: int = _EPOCH) -> str:
        """Run git as somebody at some time."""
        person = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (
                ("NAME", who),
                ("EMAIL", f"{who.split(maxsplit=1)[0].lower()}@example.org"),
                ("DATE", f"{when} +0000"),
            )
        }
        return subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=os.environ | person | {"GIT_CONFIG_GLOBAL": os.devnull},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, who: str, subject: str, files: dict[str, str]) -> str:
        """Write files and commit them, a day after the commit before; return the commit."""
        for name, text in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        self._commits += 1
        self.git("add", "--all")
        when = _EPOCH + self._commits * _DAY
        self.git("commit", "--quiet", "--message", subject, who=who, when=when)
        return self.git("rev-parse", "HEAD")


def orchard(path: Path) -> Made:
    """Return a repository of 13 commits and a merge, by two people, with some of everything."""
    made = Made(path)
    code = "".join(f"def apple_{n}(basket):\n    return basket + [{n}]\n\n\n" for n in range(15))
    made.commit("Ada", "Plant the orchard", {"orchard/apples.py": code, "README.md": "# Orchard\n"})
    for n in range(4):
        made.commit(
            "Ada" if n % 2 else "Bob | the *builder*",
            f"Apples, year {n}",
            {
                "orchard/apples.py": code + f"YEAR = {n}\n",
                "tests/test_apples.py": f"def test_year():\n    assert {n} == {n}\n",
            },
        )
    made.commit(
        "Bob | the *builder*",
        "Read recipes",
        {"orchard/recipes.py": _RECIPES},
    )
    for n in range(6):
        made.commit("Ada", f"Notes, day {n}", {f"docs/day-{n}.md": f"Day {n}: rain.\n"})
    made.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    made.commit("Ada", "On the side", {"orchard/pears.py": "PEARS = 3\n"})
    made.git("checkout", "--quiet", "main")
    made.git("merge", "--quiet", "--no-ff", "--message", "Merge the side", "side")
    return made
