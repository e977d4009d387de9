"""Take secrets out of what is about to be shown: log fields, messages, reasons of probes.

Promise: what comes out is plain JSON of bounded size, without the value of any key that sounds
like a secret and without the user part of any URL. It rather hides too much than too little. It
does not know which secrets exist, so a secret under an innocent name passes.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

HIDDEN = "***"
CUT = "…"

_LONGEST = 8192  # characters of one string
_WIDEST = 100  # entries of one collection
_DEEPEST = 6  # collections inside collections
_LONGEST_NAME = 100

_KEYS = (
    "(?:access|account|api|auth|encryption|functions|master|private|shared|signing|subscription)"
    "[ _-]?key"
)
_WORDS = (
    rf"passw(?:or)?d|passphrase|passcode|secret|token|authorization|{_KEYS}|connection[ _-]?string"
    "|credential|cookie|signature|(?<![a-z])(?:sig|pwd|pw|psk|otp|auth|jwt|bearer)(?![a-z])"
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
#: What a secret is: all between quotes, whatever is escaped in there and however often the quotes
#: are escaped themselves, to the end where they never close; what is listed; or up to what looks
#: like an end.
_VALUE = (
    r"(?:b?(?P<escape>\\{0,4})(?P<quote>[\"'])(?:(?!(?<!\\)(?P=escape)(?P=quote))[\s\S])*"
    r"(?:(?P=escape)(?P=quote)|\Z)|[\[({][^\[\](){}]*[\])}]?|[^\s&,;)}\]]+)"
)
#: ``password=x`` of a query or a repr, also percent-encoded; ``'password': 'x'`` of a printed
#: mapping, also inside of another text; ``("password", "x")`` of printed pairs.
_ASSIGNED = re.compile(
    rf"((?:{_WORDS})[\w-]{{0,40}}(?:\s{{0,4}}(?:=|%3D|%22%3A)\s{{0,4}}"
    rf"|\\{{0,4}}[\"']\s{{0,4}}(?::\s{{0,4}}|,\s{{0,4}}(?=b?[\"'])))){_VALUE}",
    re.IGNORECASE,
)
#: ``password: x``, and a header like it. A bare ``token:`` is what parsers complain of.
_SAID = re.compile(
    rf"\b((?:[\w-]{{0,40}}(?:passw(?:or)?d|passphrase|passcode|{_KEYS}|[_-]token|[_-]secret)"
    rf"|pwd):\s{{0,4}}){_VALUE}",
    re.IGNORECASE,
)
#: ``--password x`` of a command, and ``<password>x<`` of a document.
_OPTION = re.compile(
    rf"((?<![\w-])--(?=\w)[\w-]{{0,40}}?(?:{_WORDS})[\w-]{{0,40}}\s{{1,4}}){_VALUE}",
    re.IGNORECASE,
)
_ELEMENT = re.compile(
    rf"(<[\w:-]{{0,40}}?(?:{_WORDS})[\w:-]{{0,40}}(?:\s[^<>]{{0,200}})?>)[^<]+", re.IGNORECASE
)
#: A header as it is sent: what is secret goes on to the end of the line.
_HEADER = re.compile(
    r"\b((?:(?:proxy-)?authorization|(?:set-)?cookie):[ \t]{0,4})(?:=\"[^\r\n\"]*\"|[^\r\n\"'])+",
    re.IGNORECASE,
)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_SCHEME = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
#: How secrets begin that are made to be recognised: our own, and those of who is asked most.
_BEGINS = (
    r"ms_[a-z2-7]{16}_|sk-|sk_live_|sk_test_|rk_live_|gh[opsur]_|github_pat_|glpat-|xox[a-z]-|hf_"
    r"|npm_|AIza|ya29\."
)
_MADE = re.compile(rf"(?<![A-Za-z0-9])(?:{_BEGINS})[\w-]{{20,}}")
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----)[\s\S]*?(?=-----END|\Z)")
#: A name, an id, a path: most of what is logged. The searches above could find nothing in it but
#: what is made to be recognised, and none of that is short.
_PLAIN = re.compile(r"[\w.-][\w./-]{0,199}\Z")
_SHORT = 22
_RECOGNISED = re.compile(rf"eyJ|{_BEGINS}")
_NUMBERS = frozenset({int, float, bool})
#: What names, numbers and paths are written with, and JSON around them.
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
            plain = _PLAIN.match(value) is not None and (
                len(value) <= _SHORT or _RECOGNISED.search(value) is None
            )
        else:
            plain = kind is int or (kind is float and math.isfinite(value))
        secret = _looked_up(key) if len(key) <= _LONGEST_NAME else _is_secret(key)
        kept[key] = value if plain and not secret else _under(key, value, 0)

    return kept


def is_clear(fields: Mapping[str, Any], encoded: bytes) -> bool:
    """Whether named values, encoded as one object of JSON, are what `redact_fields` would leave.

    It sees most of what is logged to be so, and at once. Each search here needs a colon, a sign or
    a space in a value, or finds what is long and made to be recognised. A number that JSON has no
    word for was made null.
    """
    if (
        encoded.translate(None, _HARMLESS)
        or encoded.count(b":") != len(fields)
        or b":null" in encoded
        or len(encoded) > _LONGEST
        or _any_secret(tuple(fields))
    ):
        return False
    for value in fields.values():
        kind = type(value)
        if kind is str:
            if len(value) > _SHORT and _RECOGNISED.search(value) is not None:
                return False
        elif kind not in _NUMBERS:
            return False
    return True


def redact_text(text: str) -> str:
    """Return the text without URL passwords, assigned secrets and authorization headers."""
    if _is_plain(text):
        return str(text)

    # The first cut bounds the searches; what it splits is taken out by the second.
    text = _without_middle(str(text), 4 * _LONGEST)
    if "://" in text:
        text = _USERINFO.sub(f"://{HIDDEN}@", text)
    if _SECRET_KEY.search(text):
        text = _without_named(text)
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    text = _MADE.sub(HIDDEN, text)
    if "eyJ" in text:
        text = _JWT.sub(HIDDEN, text)

    return _without_middle(text, _LONGEST)


def _without_named(text: str) -> str:
    """Take out what stands behind a name that sounds like a secret."""
    if ":" in text:
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _SAID.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    if "--" in text:
        text = _OPTION.sub(rf"\1{HIDDEN}", text)
        text = _PEM.sub(rf"\1{HIDDEN}", text)
    if ">" in text:
        text = _ELEMENT.sub(rf"\1{HIDDEN}", text)
    return text


def _is_plain(text: str) -> bool:
    if _PLAIN.match(text) is None:
        return False
    return len(text) <= _SHORT or _RECOGNISED.search(text) is None


def _without_middle(text: str, longest: int) -> str:
    # The end of a traceback says what happened, its beginning says where.
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}{CUT}{text[-half:]}"


def _is_secret(key: str) -> bool:
    # Long ones are no names, and must not be kept.
    return _looked_up(key) if len(key) <= _LONGEST_NAME else _SECRET_KEY.search(key) is not None


@lru_cache(maxsize=1024)
def _looked_up(key: str) -> bool:
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
        case [str() | bytes() as key, value] if _is_secret(str(key)):
            # A pair, as headers come in.
            return [redact_text(str(key)), _under(str(key), value, depth)]
    kept = [_redact(value, depth) for value in _without_arguments(islice(values, _WIDEST))]
    return kept if len(values) <= _WIDEST else [*kept, CUT]


def _without_arguments(values: Iterable[Any]) -> Iterator[Any]:
    """Hide what follows an option in the arguments of a command."""
    option = False
    for value in values:
        yield HIDDEN if option else value
        option = isinstance(value, str) and value.startswith("--") and _is_secret(value)
        option = option and "=" not in value


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a broken repr must not break what is being told
        return f"<{type(value).__name__}>"
