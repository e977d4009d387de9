"""Rendered places, each rendered once; and a change of one that leaves the others alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest

pytest.importorskip("yaml", reason="the extra `k8s` is not installed: make k8s-check")
pytest.importorskip(
    "kubernetes_validate", reason="the extra `k8s` is not installed: make k8s-check"
)

from k8s.check.objects import Place
from k8s.check.render import Target, render, targets


@cache
def _rendered(name: str) -> Place:
    return render(next(target for target in targets() if target.name == name))


@pytest.fixture
def place() -> Callable[[str], Place]:
    """A copy of a place that a test may change."""
    return lambda name: copy.deepcopy(_rendered(name))


@pytest.fixture
def rendered() -> Callable[..., Place]:
    """A set of components on the base."""
    return lambda *components: render(Target("+".join(components), components=components))
