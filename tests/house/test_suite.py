"""The tests as a whole: what makes them dear is counted, not timed."""

from __future__ import annotations

import re

from tests.house import tree

#: Who starts an interpreter for a program of the house, and why a fork would not do.
FRESH = {
    "tests/cli/program.py": "with variables of Python's own, for how the command line starts",
    "tests/cli/test_backup.py": "bytes that are no text go through a pipe",
    "tests/cli/test_bench.py": "a copy of the package without the checkout",
    "tests/demo/conftest.py": "the demo, as a user calls it",
    "tests/gateway/processes.py": "gRPC's library does not promise to live in a fork",
    "tests/k8s/test_life.py": "the command line of a pod, as the kubelet would start it",
    "tests/k8s/test_regions.py": "the same",
}
_STARTS = re.compile(r'sys\.executable, "-m", (?:"millstream|"tests\.|\*command)')


def test_programs_are_forked_unless_there_is_a_reason() -> None:
    """A fresh interpreter imports for a second of CPU, and the suite starts hundreds."""
    files = sorted((tree.ROOT / "tests").rglob("*.py"))
    found = {tree.name(each) for each in files if _STARTS.search(each.read_text("utf-8"))}

    assert found - {"tests/forks.py"} == set(FRESH)
