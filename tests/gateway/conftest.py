"""What these tests share: an identity provider, and a gateway with a worker behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served, worker


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Signs tokens that the gateway takes."""
    return Issuer(tmp_path / "keys.json")


@pytest.fixture
async def gateway(memory_url: str, issuer: Issuer) -> AsyncIterator[Served]:
    """A gateway over an empty store."""
    async with served(memory_url, issuer) as gateway:
        yield gateway


@pytest.fixture
async def working(gateway: Served) -> AsyncIterator[Served]:
    """The same, with a worker."""
    async with worker(gateway.store):
        yield gateway
