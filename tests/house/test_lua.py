"""What every Lua script looks like: one script is one atomic promise, with one owner."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from tests.house import tree

STORE = tree.ROOT / "millstream" / "store"
SCRIPTS = sorted((STORE / "lua").rglob("*.lua"))


def test_a_script_begins_with_its_contract() -> None:
    """Keys, arguments and answers are read here, not guessed from the caller."""
    bare = [file for file in SCRIPTS if not file.read_text("utf-8").startswith("--")]

    assert [tree.name(file) for file in bare] == []


def test_a_script_belongs_to_one_module() -> None:
    """Unused, it is dead; called from two modules, its promise has two owners."""
    owners = Counter(
        name for file in sorted(STORE.rglob("*.py")) for name in _scripts_named_in(file)
    )
    # A leading underscore marks a fragment that other scripts use.
    scripts = [file for file in SCRIPTS if not file.stem.startswith("_")]

    assert {tree.name(f): owners[f.stem] for f in scripts if owners[f.stem] != 1} == {}


def test_a_fragment_is_used() -> None:
    """The header of a script names the fragments that are put in front of it."""
    headers = [line.split() for file in SCRIPTS for line in file.read_text("utf-8").splitlines()]
    used = {part for words in headers if words[:2] == ["--", "USES"] for part in words[2:]}
    fragments = {file.stem for file in SCRIPTS if file.stem.startswith("_")}

    assert fragments == used


def _scripts_named_in(file: Path) -> set[str]:
    """The scripts a module runs: `call(client, "settle", ...)`, or `script("settle")`."""
    return {
        argument.value
        for node in ast.walk(tree.parsed(file))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in {"call", "script"}
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
