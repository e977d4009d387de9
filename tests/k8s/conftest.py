"""Rendered places, each rendered once; and a change of one that leaves the others alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from k8s.check.objects import Place

#: `make test` does not install what these tests need; `make k8s-check` does, and runs them.
if find_spec("yaml") is None or find_spec("kubernetes_validate") is None:
    collect_ignore_glob = ["*.py"]


@cache
def _rendered(name: str) -> Place:
    from k8s.check.render import render, targets

    return render(next(target for target in targets() if target.name == name))


@pytest.fixture
def place() -> Callable[[str], Place]:
    """A copy of a place that a test may change."""
    return lambda name: copy.deepcopy(_rendered(name))
