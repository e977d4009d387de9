"""Prints the generated pages of the documentation again, or checks that they are fresh.

A generated page names its printer in its first lines, and is what that command prints:

    <!-- Printed by `python -m some.module`; do not edit. -->

So a fact lives once, in code, and a page cannot grow stale.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRINTER = re.compile(r"^<!-- Printed by `python (-m [^`]+)`; do not edit\. -->$", re.MULTILINE)


def stale_pages() -> dict[Path, str]:
    """The pages that differ from what their printer prints today, with that text."""
    stale = {}
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = page.read_text("utf-8")
        printer = PRINTER.search(text)
        if printer and (fresh := printed(printer[1])) != text:
            stale[page] = fresh
    return stale


def printed(arguments: str) -> str:
    """What ``python`` prints when called like this."""
    command = [sys.executable, *shlex.split(arguments)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(arguments: list[str]) -> int:
    """Write stale pages; with ``--check`` only name them."""
    check = "--check" in arguments
    stale = stale_pages()
    for page, fresh in stale.items():
        if not check:
            page.write_text(fresh, "utf-8")
        print(f"{page.relative_to(ROOT)}: {'stale, run `make docs`' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
