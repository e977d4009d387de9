"""Seal values with AES-GCM where they enter Redis, and open them where they leave it.

A sealed value is a JSON text that no encoder writes: its first letter is spelt out as an escape. So
it can stand wherever a value stands, also inside of a record or a start, and is told from every
plain value by its first bytes; plain and sealed ones are read side by side.

The promise: a value opens only where it belongs. The key it is sealed with is derived from the one
of the ring and the run; its place (queue, run, kind, name) is authenticated along with it. Whoever
can write to Redis cannot change a sealed value, nor pass that of one step, run or queue for that of
another. An older value of the very same place, or a plain one, they can put there.
"""

from __future__ import annotations

import binascii
import functools
import hmac
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from millstream.errors import MissingExtra, SealBroken, SealKeyMissing
from millstream.store.keyring import Keyring

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: How every sealed value begins; the 1 is the format. `lua/commit.lua` knows it too.
MARK = b'"\\u0073eal1:'
_SIZE = len(MARK)
_KEYS = re.compile(re.escape(MARK) + rb"([^:]{1,24}):")
_NONCE = 12
#: Derived keys that are kept at hand: about as many as a busy process has runs.
_CIPHERS = 4096


class Place(NamedTuple):
    """What a value belongs to."""

    queue: str
    run_id: str
    #: ``arguments``, ``result``, ``error``, ``record``, ``wait``, ``message``, ``event``,
    #: ``value``, ``talk`` or ``schedule``: the words are sealed along, never change one.
    kind: str
    #: Of the step, the message, the field or the parts; empty where a run has one of its kind.
    name: str = ""

    def __str__(self) -> str:
        if self.kind == "schedule":
            return f"schedule {self.name!r}"
        what = f"the {self.kind} {self.name!r}" if self.name else f"the {self.kind}"
        return f"{what} of run {self.run_id!r} in queue {self.queue!r}"


class Sealer:
    """Seals and opens with the keys of a ring."""

    def __init__(self, ring: Keyring) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra("sealing", "cryptography") from error

        self.ring = ring
        self._new_cipher = AESGCM
        self._refusal = InvalidTag
        self._cipher = functools.lru_cache(_CIPHERS)(self._derived)

    @property
    def active(self) -> bool:
        """Whether what is new is sealed; else it stands in clear, and what is sealed is read."""
        return bool(self.ring.first()[0])

    def seal(self, place: Place, data: bytes) -> bytes:
        """Return a value sealed for its place, under the first key of the ring."""
        name, key = self.ring.first()
        if not name:
            return data
        nonce = os.urandom(_NONCE)
        cipher = self._cipher(key, place.queue, place.run_id)
        sealed = nonce + cipher.encrypt(nonce, data, _associated(place))
        text = binascii.b2a_base64(sealed, newline=False)
        return b'%b%b:%b"' % (MARK, name.encode(), text)

    def of_run(self, queue: str, run_id: str) -> Callable[[str, bytes], bytes]:
        """Return what seals for one run, given the kind of what it seals."""
        return lambda kind, data: self.seal(Place(queue, run_id, kind), data)

    def open(self, place: Place, sealed: bytes) -> bytes:
        """Return a sealed value as it was. Raises `SealKeyMissing` or `SealBroken`."""
        name = key_of(sealed)
        key = self.ring.find(name)
        if key is None:
            raise SealKeyMissing(name, str(place))
        try:
            data = binascii.a2b_base64(sealed[_SIZE + len(name) + 1 : -1], strict_mode=True)
            cipher = self._cipher(key, place.queue, place.run_id)
            return cipher.decrypt(data[:_NONCE], data[_NONCE:], _associated(place))
        except (self._refusal, ValueError):
            raise SealBroken(name, str(place)) from None

    def _derived(self, key: bytes, queue: str, run_id: str) -> AESGCM:
        """Return the cipher of one run: so many values share a nonce space, and no more."""
        scope = f"millstream seal1\n{queue}\n{run_id}".encode()
        return self._new_cipher(hmac.digest(key, scope, "sha256"))


def sealer_of(reference: str | None) -> Sealer | None:
    """Return what seals with the keys that a reference names; None: nothing is sealed.

    Raises `ConfigError`, or `MissingExtra`.
    """
    return Sealer(Keyring(reference)) if reference else None


def is_sealed(data: bytes) -> bool:
    """Whether a value is sealed."""
    return data[:_SIZE] == MARK


def opened(sealer: Sealer | None, place: Place, data: bytes) -> bytes:
    """Return a value as it was written, sealed or not. Raises `SealKeyMissing` or `SealBroken`."""
    if data[:_SIZE] != MARK:
        return data
    if sealer is None:
        raise SealKeyMissing(key_of(data), str(place))
    return sealer.open(place, data)


def keys_of(data: bytes) -> set[str]:
    """Return the names of the keys that a value, or what is in it, is sealed under."""
    return {name.decode() for name in _KEYS.findall(data)}


def key_of(data: bytes) -> str:
    """Return the name of the key that a value is sealed under, or one inside of it."""
    start = data.find(MARK)
    name = data[start + _SIZE :].partition(b":")[0] if start >= 0 else b"?"
    return name[:24].decode("ascii", "replace")


def _associated(place: Place) -> bytes:
    return "\n".join(place).encode()
