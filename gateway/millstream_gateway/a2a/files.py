"""Files of a message, as a workflow gets them: what it is called, of what type, and what it is.

    {"name": "plan.pdf", "mediaType": "application/pdf", "raw": "JVBERi0x..."}
    {"name": "plan.pdf", "mediaType": "application/pdf", "url": "https://..."}

``raw`` is base64. An address is passed on as it was written, and **never fetched here**: whoever
sends it would choose what a gateway asks for, from inside our network. Large files belong behind
one, since what a workflow is given is bounded.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from a2a.types.a2a_pb2 import Part
from a2a.utils.errors import InvalidParamsError

#: The argument of a workflow that takes files.
FILES = "files"
#: What a part with a file holds.
KINDS = frozenset({"raw", "url"})
_LONGEST_NAME, _LONGEST_URL = 255, 4_000
_SCHEMES = frozenset({"https", "http", "s3", "gs"})


def file_of(part: Part) -> Mapping[str, Any]:
    """Return the file that a part is. Raises `InvalidParamsError`."""
    if len(part.filename) > _LONGEST_NAME or not part.filename.isprintable():
        raise InvalidParamsError(f"a filename has at most {_LONGEST_NAME} printable characters")
    file: dict[str, Any] = {"name": part.filename, "mediaType": part.media_type}
    if part.WhichOneof("content") == "raw":
        return {**file, "raw": base64.b64encode(part.raw).decode()}
    printable = len(part.url) <= _LONGEST_URL and part.url.isprintable()
    # Nothing more is read of it: what a parser passes over, whoever fetches it may not.
    if not printable or part.url.partition(":")[0].lower() not in _SCHEMES:
        raise InvalidParamsError(
            f"the url of a file has at most {_LONGEST_URL} printable characters, and begins with"
            f" one of {', '.join(sorted(_SCHEMES))}"
        )
    return {**file, "url": part.url}
