"""Write most answers in one piece: a head that is the same for a second, and a document.

Promise: what is written says what the same answer says when aiohttp puts it together. Where a head
is not the usual one (headers of its own, a connection that ends with it, ``HEAD``, HTTP/1.0) that
is left to aiohttp.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from aiohttp.web import BaseRequest, Response, StreamResponse

#: Of every answer. A browser must not guess, keep or embed what it gets.
HEADERS = {
    "Server": "millstream",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that a browser hides the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
}
UNKEPT = ("Cache-Control", "no-store")
_JSON = "application/json"


class Documents:
    """Makes answers of documents."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._second = -1
        self._heads: dict[int, bytes] = {}

    def of(self, request: BaseRequest, status: int, body: bytes) -> StreamResponse:
        """Return the answer to a request that is usual in all but its status and body."""
        if request.version != HttpVersion11 or request.method == "HEAD" or not request.keep_alive:
            return Response(body=body, status=status, content_type=_JSON)
        return _Whole(status, b"%b%d\r\n\r\n%b" % (self._head(status), len(body), body))

    def _head(self, status: int) -> bytes:
        """Return all lines up to the length; they hold for a second, as the date does."""
        second = int(self._wall())
        if second != self._second:
            self._second = second
            self._heads.clear()
        head = self._heads.get(status)
        if head is None:
            head = self._heads[status] = _lines(status, second)
        return head


class _Whole(StreamResponse):
    """An answer whose head and body are written together."""

    def __init__(self, status: int, written: bytes) -> None:
        super().__init__(status=status)
        self._written = written

    @property
    def prepared(self) -> bool:
        """Nothing can be said in its head any more."""
        return True

    @property
    def keep_alive(self) -> bool:
        """It is made for no other connection."""
        return True

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter:
        """Write it, waiting for a reader that is slow."""
        writer = request.writer
        await writer.write(self._written)
        await writer.write_eof()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """There is no more."""


def _lines(status: int, second: int) -> bytes:
    headers = {
        **HEADERS,
        UNKEPT[0]: UNKEPT[1],
        "Content-Type": _JSON,
        "Date": formatdate(second, usegmt=True),
    }
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{said}Content-Length: ".encode(
        "ascii"
    )
