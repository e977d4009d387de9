"""The keys that values are sealed under: named by reference, told apart by name, never shown.

A ring is a text of lines ``NAME:KEY``, a key being 32 bytes in base64. The first one seals; all of
them open. Where the first line is the word ``clear`` nothing new is sealed. The ring stands in a
file, or in a variable of the environment, and never in an argument. A file is read again when it
has changed, at the latest when a value names a key that is not known: so keys are rotated without
a restart. Does not know what is sealed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from millstream.errors import ConfigError

#: Keys that a ring may hold: those of a rotation, and some of before.
MOST_KEYS = 16
_BYTES = 32
_LINE = re.compile(r"([A-Za-z0-9_-]{1,24}):([A-Za-z0-9+/]{43}=)")
_ENVIRONMENT = "env:"
_CLEAR = "clear"
#: How often whoever seals looks for another first key.
LOOK_S = 5.0


class Ring(NamedTuple):
    """Keys as they were read once."""

    #: The name of the key that seals; empty: what is written stands in clear.
    first: str
    keys: Mapping[str, bytes]


class Keyring:
    """The keys of one program, as they are now. Raises `ConfigError` where there are none."""

    def __init__(self, reference: str, mono: Callable[[], float] = time.monotonic) -> None:
        self._reference = reference
        self._mono = mono
        self._mark = _mark(reference)
        self._ring = read(reference)
        self._looked = mono()

    def first(self) -> tuple[str, bytes]:
        """Return the key that seals, and its name; an empty one while nothing is to be sealed."""
        if self._mono() - self._looked > LOOK_S:
            self._look()
        return self._ring.first, self._ring.keys.get(self._ring.first, b"")

    def find(self, name: str) -> bytes | None:
        """Return a key; None when it is not here, nor in the file as it is now."""
        found = self._ring.keys.get(name)
        if found is None:
            self._look()
            found = self._ring.keys.get(name)
        return found

    def names(self) -> tuple[str, ...]:
        """Return the names of the keys, in order."""
        self._look()
        return tuple(self._ring.keys)

    def _look(self) -> None:
        """Read the file anew if it is another one; one that cannot be read changes nothing."""
        self._looked = self._mono()
        mark = _mark(self._reference)
        if mark == self._mark:
            return
        try:
            ring = read(self._reference)
        except ConfigError:
            # It may be half written: what is known goes on, and it is looked at again.
            return
        if all(ring.keys.get(name, key) == key for name, key in self._ring.keys.items()):
            # A name that stood for another key would make everything under it look forged.
            self._ring, self._mark = ring, mark


def read(reference: str) -> Ring:
    """Return the keys that a reference names. Raises `ConfigError`, which shows none of them."""
    if reference.startswith(_ENVIRONMENT):
        variable = reference.removeprefix(_ENVIRONMENT)
        text = os.environ.get(variable)
        if text is None:
            raise ConfigError(f"--seal-keys: there is no variable {variable!r} in the environment")
        return _parsed(text, f"variable {variable}")
    try:
        return _parsed(Path(reference).read_text("utf-8"), f"file {reference}")
    except (OSError, UnicodeDecodeError) as error:
        # Whoever took the keys for the reference must not find them in a log.
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(
            f"--seal-keys: the file that it names cannot be read ({why}); give the name of a file,"
            " or env: and the name of a variable"
        ) from None


def fresh(name: str) -> str:
    """Return the line of a new key."""
    line = f"{name}:{base64.b64encode(secrets.token_bytes(_BYTES)).decode()}"
    if _LINE.fullmatch(line) is None:
        raise ConfigError(
            f"{name!r} cannot be the name of a key: 1 to 24 letters, digits, underscores and"
            " hyphens"
        )
    return line


def _parsed(text: str, where: str) -> Ring:
    keys: dict[str, bytes] = {}
    clear = False
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("#")[0].strip()
        if not written:
            continue
        if written == _CLEAR and not keys:
            clear = True
            continue
        found = _LINE.fullmatch(written)
        if found is None:
            raise ConfigError(
                f"--seal-keys: line {number} of {where} is no key; a line is NAME:KEY as"
                " `millstream seal new NAME` prints it"
            )
        if found[1] in keys:
            raise ConfigError(f"--seal-keys: {where} has two keys of the name {found[1]!r}")
        try:
            keys[found[1]] = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            raise ConfigError(f"--seal-keys: key {found[1]!r} of {where} is no base64") from None
    if not 0 < len(keys) <= MOST_KEYS:
        raise ConfigError(f"--seal-keys: {where} has {len(keys)} keys, and may have 1 to 16")
    return Ring("" if clear else next(iter(keys)), keys)


def _mark(reference: str) -> tuple[int, ...] | None:
    """Return by what a file is known to be the same; None for one that cannot be looked at."""
    if reference.startswith(_ENVIRONMENT):
        return None
    try:
        found = Path(reference).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
