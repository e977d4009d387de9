"""The page on testing shows tests that pass: whoever copies one starts with what works."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Its tests, in the order of the page.
EXAMPLES = re.findall(r"^async def (test_\w+)", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """Everything that the page defines, as one module."""
    module = ModuleType("testing_page")
    sys.modules[module.__name__] = module
    source = "\n".join(_BLOCK.findall(PAGE.read_text("utf-8")))
    exec(compile(source, str(PAGE), "exec"), module.__dict__)
    yield module.__dict__
    del sys.modules[module.__name__]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_holds(name: str, page: dict[str, Any]) -> None:
    await page[name]()


def test_every_block_is_part_of_them(page: dict[str, Any]) -> None:
    """None is left out because it is no Python block, or defines its test in another way."""
    text = PAGE.read_text("utf-8")
    assert text.count("```") == 2 * len(_BLOCK.findall(text))
    found = [name for name, value in page.items() if name.startswith("test_")]
    assert found == EXAMPLES
    assert all(inspect.iscoroutinefunction(page[name]) for name in found)
    assert len(found) >= 8
