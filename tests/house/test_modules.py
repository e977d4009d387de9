"""What every shipped module looks like, so that the next one is easy to find and to read."""

from __future__ import annotations

import ast

from tests.house import tree

#: Names that say nothing: what such a module holds has a better home.
EMPTY_NAMES = {
    "base",
    "common",
    "constants",
    "helpers",
    "manager",
    "misc",
    "types",
    "utils",
}


def test_a_module_fits_into_one_sitting() -> None:
    """At 350 lines a module has two subjects, and should be two modules."""
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in tree.modules()}

    assert [f"{tree.name(file)}: {n}" for file, n in lengths.items() if n > 350] == []


def test_a_module_says_what_it_is_for() -> None:
    """The first line of a file is the cheapest documentation there is."""
    silent = [file for file in tree.modules() if not ast.get_docstring(tree.parsed(file))]

    assert [tree.name(file) for file in silent] == []


def test_a_module_is_named_after_its_subject() -> None:
    """A drawer called `utils` collects what nobody will find again."""
    empty = [
        path
        for package in tree.packages()
        for path in [package, *package.rglob("*")]
        if path.suffix in {"", ".py"} and path.stem.strip("_") in EMPTY_NAMES
    ]

    assert [tree.name(path) for path in empty] == []


def test_a_function_fits_on_a_screen() -> None:
    """Sixty lines is the end of patience; most functions here are eight."""
    long = [
        f"{tree.name(file)}:{node.lineno} {node.name}: {length} lines"
        for file in tree.modules()
        for node in ast.walk(tree.parsed(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    ]

    assert long == []
