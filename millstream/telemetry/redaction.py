"""Take secrets out of what is about to be shown: log fields, messages, reasons of probes.

Promise: what comes out is plain JSON of bounded size, without the value of any key that sounds
like a secret and without the user part of any URL. It rather hides too much than too little. It
does not know which secrets exist, so a secret under an innocent name passes.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

HIDDEN = "***"
CUT = "…"

_LONGEST = 8192  # characters of one string
_WIDEST = 100  # entries of one collection
_DEEPEST = 6  # collections inside collections

_WORDS = (
    "passw(?:or)?d|passphrase|secret|token|authorization|(?:api|private|access)[_-]?key"
    "|credential|cookie|signature|(?<![a-z])(?:sig|pwd|auth|jwt|bearer)(?![a-z])"
)
_SECRET_KEY = re.compile(_WORDS, re.IGNORECASE)
#: ``max_tokens`` and the like: with a number behind it, it counts what a model read or wrote.
_COUNTED = re.compile(r"tokens(?:_[a-z]+)?$", re.IGNORECASE)

#: The user part of a URL. A user alone may be a token too, so all of it goes. The first branch
#: takes passwords that hold an unescaped ``/`` or ``@``: a colon that no port number follows.
#: Every repetition is bounded, so that no text makes the search quadratic.
_USERINFO = re.compile(
    r"://(?:[^\s/?#:@\[]{0,256}:(?!\d+(?:[/?#\s]|$))\S{0,1024}@|[^\s/?#]{1,1024}@)"
)
#: ``password=x`` of a query or a repr, also percent-encoded; ``'password': 'x'`` of a printed
#: mapping, also inside of another text; ``("password", "x")`` of printed pairs.
_ASSIGNED = re.compile(
    rf"((?:{_WORDS})[\w-]{{0,40}}(?:\s{{0,4}}(?:=|%3D)\s{{0,4}}"
    r"|\\{0,4}[\"']\s{0,4}(?::\s{0,4}|,\s{0,4}(?=b?[\"']))))"
    r"(?:b?\\{0,4}\"[^\"]*\"|b?'[^']*'|[^\s&,;)}\]]+)",
    re.IGNORECASE,
)
#: ``password: x``, and a header like it. A bare ``token:`` is what parsers complain of.
_SAID = re.compile(
    r"\b((?:[\w-]{0,40}(?:passw(?:or)?d|passphrase|(?:api|private|access)[_-]?key|[_-]token|[_-]secret)"
    r"|pwd):\s{0,4})[^\s&,;)}\]]+",
    re.IGNORECASE,
)
#: A header as it is sent: what is secret goes on to the end of the line.
_HEADER = re.compile(
    r"\b((?:(?:proxy-)?authorization|(?:set-)?cookie):[ \t]{0,4})[^\r\n\"']+", re.IGNORECASE
)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
#: A name, an id, a path: nothing that the searches above could find, and most of what is logged.
_PLAIN = re.compile(r"(?!.*eyJ)[\w.-][\w./-]{0,199}\Z")
#: What names, numbers and paths are, and what they are written with, and JSON around them.
_SIMPLE = frozenset({str, int, float, bool})
_HARMLESS = f'{string.ascii_letters}{string.digits}_.-+/{{":,}}'.encode()


def redact(value: Any) -> Any:
    """Return the value as plain, bounded JSON without its secrets."""
    return _redact(value, 0)


def redact_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values without their secrets."""
    kept = {}
    for key, value in fields.items():
        # Names, ids and counts are most of what is logged, and are told from the rest at once.
        kind = type(value)
        if kind is str:
            plain = _PLAIN.match(value) is not None
        else:
            plain = kind is int or (kind is float and math.isfinite(value))
        kept[key] = value if plain and not _is_secret(key) else _under(key, value, 0)

    return kept


def is_clear(fields: Mapping[str, Any], encoded: bytes) -> bool:
    """Whether named values, encoded as one object of JSON, are what `redact_fields` would leave.

    It sees most of what is logged to be so, and at once. Each search here needs a colon, a sign or
    a space in a value, or begins with ``eyJ``. A number that JSON has no word for was made null.
    """
    return (
        not encoded.translate(None, _HARMLESS)
        and encoded.count(b":") == len(fields)
        and b":null" not in encoded
        and b"eyJ" not in encoded
        and len(encoded) <= _LONGEST
        and _SIMPLE.issuperset(map(type, fields.values()))
        and not _any_secret(tuple(fields))
    )


def redact_text(text: str) -> str:
    """Return the text without URL passwords, assigned secrets and authorization headers."""
    if _PLAIN.match(text):
        return str(text)

    # The first cut bounds the searches; what it splits is taken out by the second.
    text = _without_middle(str(text), 4 * _LONGEST)
    if "://" in text:
        text = _USERINFO.sub(f"://{HIDDEN}@", text)
    if ":" in text:
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _SAID.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)

    return _without_middle(text, _LONGEST)


def _without_middle(text: str, longest: int) -> str:
    # The end of a traceback says what happened, its beginning says where.
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}{CUT}{text[-half:]}"


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


@lru_cache(maxsize=1024)
def _any_secret(keys: tuple[str, ...]) -> bool:
    return any(map(_is_secret, keys))


def _under(key: str, value: Any, depth: int) -> Any:
    if not _is_secret(key) or value is None:
        return _redact(value, depth)
    if isinstance(value, int | float) and _COUNTED.search(key):
        return _redact(value, depth)
    return HIDDEN


def _redact(value: Any, depth: int) -> Any:
    match value:
        case str():
            return redact_text(value)
        case float() if not math.isfinite(value):
            return str(value)  # JSON has no word for it
        case None | bool() | int() | float():
            return value
        case Mapping() | list() | tuple() | set() | frozenset():
            return _collected(value, depth + 1) if depth < _DEEPEST else CUT
        case _:
            return redact_text(_shown(value))


def _collected(values: Collection[Any], depth: int) -> dict[str, Any] | list[Any]:
    if isinstance(values, Mapping):
        pairs = islice(values.items(), _WIDEST)
        return {redact_text(str(k)): _under(str(k), v, depth) for k, v in pairs}

    match values:
        case [str() as key, value] if _is_secret(key):
            # A pair, as headers come in.
            return [redact_text(key), _under(key, value, depth)]
    kept = [_redact(value, depth) for value in islice(values, _WIDEST)]
    return kept if len(values) <= _WIDEST else [*kept, CUT]


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a broken repr must not break what is being told
        return f"<{type(value).__name__}>"
