"""What the tests of the scheduler share: a lane on a bench."""

from __future__ import annotations

import pytest

from millstream.store.connection import Connection
from tests.store.bench import Bench


@pytest.fixture
async def bench(store: Connection) -> Bench:
    """A lane with its groups, on each kind of store in turn."""
    made = Bench(store)
    await made.prepare()
    return made
