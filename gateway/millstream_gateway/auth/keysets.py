"""The public keys that tokens are checked with, from files and addresses, and fresh.

Promises: a source that is away costs nothing but freshness, for an hour; a key that nobody has seen
yet is looked for at most every ten seconds, whoever asks; what is read is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import anyio

from millstream.errors import ConfigError
from millstream.events import Emit, StoreFailed
from millstream.public_keys import MOST_BYTES, Key, KeysUnreadable, chosen, parsed
from millstream_gateway.refusals import Unavailable

_FETCH_S = 5.0
#: An unknown key is looked for no more often.
_AGAIN_S = 10.0
#: Keys that could not be read anew are believed for so long.
STALE_S = 3600.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Source(Protocol):
    """Where keys come from."""

    async def load(self) -> bytes:
        """Return a JWKS document or PEM text. Raises `KeysUnreadable`."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Keys in a file, which may be replaced while it is in use."""

    path: str

    async def load(self) -> bytes:
        """Read the file."""
        try:
            async with await anyio.open_file(self.path, "rb") as file:
                return await file.read(MOST_BYTES)
        except OSError as error:
            raise KeysUnreadable(f"cannot read {self.path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Keys under an address, such as the ``jwks_uri`` of an identity provider."""

    url: str
    session: Callable[[], aiohttp.ClientSession]

    async def load(self) -> bytes:
        """Fetch the document. Redirects are not followed: the address says whom to trust."""
        try:
            async with (
                self.session() as session,
                session.get(
                    self.url,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=_FETCH_S),
                ) as answer,
            ):
                if answer.status != 200:
                    raise KeysUnreadable(f"{self.url} answers {answer.status}")
                return await answer.content.read(MOST_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KeysUnreadable(f"{self.url}: {error or type(error).__name__}") from error


def source_of(where: str, session: Callable[[], aiohttp.ClientSession]) -> Source:
    """Return the source that a setting names. Raises `ConfigError` for an address in the clear."""
    if "://" not in where:
        return FileSource(where)

    url = urlsplit(where)
    if url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK):
        return UrlSource(where, session)
    raise ConfigError(f"keys are read over https, not from {where!r}")


class Keys:
    """The keys of all sources. ``refresh_forever`` keeps them fresh."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        refresh_s: float,
        emit: Emit,
        mono: Callable[[], float],
    ) -> None:
        self._sources = tuple(sources)
        self._refresh_s = refresh_s
        self._emit = emit
        self._mono = mono
        #: By source: what it said last, and when.
        self._known: dict[int, tuple[float, list[Key]]] = {}
        self._looked = float("-inf")
        self._lock = anyio.Lock()

    async def refresh_forever(self) -> None:
        """Read all sources now and again."""
        while True:
            async with self._lock:
                await self._load()
            await anyio.sleep(self._refresh_s if self._known else min(1.0, self._refresh_s))

    async def fitting(self, kid: str | None, algorithm: str) -> list[Key]:
        """Return the keys that may have signed. Raises `Unavailable` while there is none at all."""
        found = chosen(self._fresh(), kid, algorithm)
        if not found:
            # Whoever asks while they are being read waits for that, however many ask.
            async with self._lock:
                if self._mono() - self._looked > _AGAIN_S:
                    await self._load()
            found = chosen(self._fresh(), kid, algorithm)
        if not found and not self._fresh():
            raise Unavailable("the keys of the identity provider cannot be read just now")
        return found

    def _fresh(self) -> list[Key]:
        now = self._mono()
        return [key for at, keys in self._known.values() if now - at < STALE_S for key in keys]

    async def _load(self) -> None:
        self._looked = self._mono()
        for number, source in enumerate(self._sources):
            try:
                self._known[number] = (self._mono(), parsed(await source.load()))
            except KeysUnreadable as error:
                self._emit(StoreFailed(during="keys", error=f"KeysUnreadable: {error}"))
