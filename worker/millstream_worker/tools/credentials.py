"""Texts of the configuration that may hold secrets: references, resolved late and never shown.

Promise: what stands behind ``${env:NAME}`` or ``${file:/path}`` is in no repr, and `Redactor`
takes it out of every text that leaves this package, also after a file was rotated. It does not
know what the texts are for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from millstream.errors import ConfigError

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_HIDDEN = "***"

#: A shorter text is found by chance in any message, and is no secret worth the name.
_SHORTEST = 4
_LARGEST_FILE = 64 * 1024


class Sealed:
    """A text whose references are resolved when it is used. Its repr shows the references alone."""

    __slots__ = ("_literal_is_secret", "_template")

    def __init__(self, template: str, *, literal_is_secret: bool = False) -> None:
        self._template = template
        self._literal_is_secret = literal_is_secret
        for reference in _REFERENCE.findall(template):
            if not reference.startswith(("env:", "file:")):
                raise ConfigError(
                    f"${{{reference}}} is not a reference millstream knows; write ${{env:NAME}}"
                    " or ${file:/path}"
                )

    def __repr__(self) -> str:
        references = _REFERENCE.findall(self._template)
        return f"Sealed({' '.join(f'${{{r}}}' for r in references) or _HIDDEN})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sealed) and self._template == other._template

    def __hash__(self) -> int:
        return hash(self._template)

    def reveal(self) -> str:
        """Return the text with its references resolved, or raise `ConfigError`."""
        return _REFERENCE.sub(lambda match: _resolve(match.group(1)), self._template)

    def secrets(self) -> list[str]:
        """Return what must not be shown: the values behind the references, or the literal."""
        values = [_resolve(reference) for reference in _REFERENCE.findall(self._template)]
        if self._literal_is_secret:
            # `Bearer abc`: the second word alone is the secret, and may be quoted alone.
            values += [self._template, *self._template.split()[1:]]
        return values


class Redactor:
    """Takes every secret it has seen out of a text."""

    def __init__(self, sealed: Iterable[Sealed] = ()) -> None:
        self._secrets: set[str] = set()
        for one in sealed:
            self._learn(one)

    def reveal(self, sealed: Sealed) -> str:
        """Return the text of a `Sealed`, and remember what has to be hidden from now on."""
        self._learn(sealed)
        return sealed.reveal()

    def __call__(self, text: str) -> str:
        """Return the text with every known secret replaced."""
        # Longest first, so that a secret that holds another one leaves no rest of itself.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _HIDDEN)
        return text

    def hide(self, secret: str) -> None:
        """Remember a text that has to be hidden from now on."""
        if len(secret) >= _SHORTEST:
            # A URL, a repr and a JSON text each spell it in their own way.
            self._secrets |= {secret, quote(secret, safe=""), repr(secret)[1:-1]}

    def _learn(self, sealed: Sealed) -> None:
        for secret in sealed.secrets():
            self.hide(secret)


def _resolve(reference: str) -> str:
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise ConfigError(f"environment variable {name} is not set; set it for the worker")
        return value

    try:
        with Path(name).open(encoding="utf-8") as file:
            return file.read(_LARGEST_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"secret file {name} cannot be read ({type(error).__name__}); mount it for the worker"
        ) from error
