"""Reading one object of a JSON configuration, key by key, with errors that say where.

Promise: a value of the wrong kind becomes one `ConfigError` that names its path and what would
be right, and never shows a value that may be secret. It does not know what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from millstream.errors import ConfigError
from millstream_worker.tools.credentials import Sealed

#: Names of variables whose plain value is hidden too.
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential|cookie|dsn", re.IGNORECASE)


class Entry:
    """One JSON object and its place in the file."""

    def __init__(self, path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{path} must be an object, not {_kind(value)}")
        self._path = path
        self._value: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def wrong(self, key: str, what: str) -> ConfigError:
        """Return the error that says what is wrong with a key."""
        return ConfigError(f"{self._path}.{key} {what}")

    def only(self, known: str) -> None:
        """Refuse keys that are not in the list: a typo would silently take a default."""
        for key in self._value:
            if key not in known.split():
                raise self.wrong(key, f"is not an option; there are {', '.join(known.split())}")

    def rest(self, known: str) -> dict[str, Any]:
        """Return what stands under keys that are not in the list."""
        return {key: value for key, value in self._value.items() if key not in known.split()}

    def child(self, key: str) -> Entry:
        """Return the object under a key; an empty one where there is none."""
        value = self._value.get(key)
        return Entry(f"{self._path}.{key}", {} if value is None else value)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        value = self._value.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, f"must be a text, not {_kind(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; an empty one where there is none."""
        value = self._value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._value.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {_kind(value)}")
        return value

    def number(
        self, key: str, default: float, least: float, most: float, *, whole: bool = False
    ) -> float:
        """Return a number within its bounds."""
        value = self._value.get(key, default)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise self.wrong(key, f"must be a number from {least:g} to {most:g}")
        return float(value)

    def choice(self, key: str, choices: type[StrEnum], default: StrEnum | None = None) -> str:
        """Return one of a closed set of words."""
        value = self._value.get(key, default)
        if value not in list(choices):
            raise self.wrong(key, f"must be one of {', '.join(choices)}")
        return str(value)

    def sealed(self, key: str, text: str, *, literal_is_secret: bool = False) -> Sealed:
        """Return a text that may hold references, all of which can be resolved."""
        try:
            sealed = Sealed(text, literal_is_secret=literal_is_secret)
            sealed.reveal()
        except ConfigError as error:
            raise self.wrong(key, f": {error}") from None
        return sealed

    def sealed_map(self, key: str, *, literal_is_secret: bool = False) -> dict[str, Sealed]:
        """Return an object of texts that may hold references."""
        child = self.child(key)
        return {
            name: child.sealed(
                name,
                child.text(name),
                literal_is_secret=literal_is_secret or bool(_SECRET_NAME.search(name)),
            )
            for name in child
        }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return "missing" if value is None else names.get(type(value), "a number")
