"""The file of a backup: frames behind one another, compressed, with a digest of all at the end.

A gzip stream; in it a line that names the format and its version, then frames, each its length and
an array of MessagePack. The last frame says how many there were, and the SHA-256 of everything
before it: what is cut off or was changed is found by reading to the end. Both sides hold one frame
at a time. It does not know what a frame means.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from millstream.errors import BrokenBackup
from millstream.model.limits import MIB

#: What every file begins with. A reader of one version refuses another.
MAGIC = b"millstream-backup 1\n"
END = "end"
_LENGTH = struct.Struct(">I")
#: A run with all that belongs to it, and far more.
_LARGEST = 512 * MIB
_CHUNK = 1 * MIB
_GZIP = 31
_LEVEL = 1

Frame = list[Any]


class Writes(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> Any:
        """Write all of it."""


class Reads(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""


class Writer:
    """Writes frames. `close` writes the last one; without it the file is no backup."""

    def __init__(self, out: Writes) -> None:
        self._out = out
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._digest = hashlib.sha256()
        #: How many frames of each kind there are.
        self.counts: dict[str, int] = {}
        #: What was written to the file so far.
        self.bytes = 0
        self._put(MAGIC)

    def add(self, frame: Frame) -> None:
        """Write a frame. Its first value says of what kind it is."""
        self.counts[frame[0]] = self.counts.get(frame[0], 0) + 1
        self._frame(frame)

    def close(self) -> str:
        """Write what ends the file; return the digest of what it holds."""
        digest = self._digest.hexdigest()
        self._frame([END, self.counts, digest])
        self._write(self._zip.flush())
        return digest

    def _frame(self, frame: Frame) -> None:
        data = msgspec.msgpack.encode(frame)
        self._put(_LENGTH.pack(len(data)) + data)

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._write(self._zip.compress(data))

    def _write(self, data: bytes) -> None:
        if data:
            self._out.write(data)
            self.bytes += len(data)


class Reader:
    """Reads frames, and finds out at the end whether it has read what was written."""

    def __init__(self, file: Reads) -> None:
        self._file = file
        self._zip = zlib.decompressobj(_GZIP)
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self.counts: dict[str, int] = {}
        #: The digest of what was read, once all of it was.
        self.digest = ""

    def frames(self) -> Iterator[Frame]:
        """Iterate over the frames. Raises `BrokenBackup`, at the end if not before."""
        self._check_magic()
        while True:
            expected = self._digest.hexdigest()
            head = self._take(_LENGTH.size)
            (length,) = _LENGTH.unpack(head)
            if length > _LARGEST:
                raise BrokenBackup(f"a frame claims to have {length:,} bytes")
            frame = _decoded(self._take(length))
            if frame[0] == END:
                self._check_end(frame, expected)
                return
            self.counts[frame[0]] = self.counts.get(frame[0], 0) + 1
            yield frame

    def _check_magic(self) -> None:
        try:
            line = self._take(len(MAGIC))
        except BrokenBackup:
            line = b""
        if line != MAGIC:
            raise BrokenBackup("it does not begin like one, or another release has written it")

    def _check_end(self, frame: Frame, expected: str) -> None:
        if frame[1:] != [self.counts, expected]:
            raise BrokenBackup("its digest is another one than it says")
        more = bool(self._buffer) or self._more()
        if not self._zip.eof and not more:
            raise BrokenBackup("it was cut off")
        if more or self._zip.unused_data or self._file.read(1):
            raise BrokenBackup("something follows its end")
        self.digest = expected

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise BrokenBackup("it was cut off")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._digest.update(data)
        return data

    def _more(self) -> bool:
        """Read on; whether there was anything."""
        while not self._zip.eof:
            # What was given and not used yet comes first: one chunk may unpack to very much.
            data = self._zip.unconsumed_tail or self._file.read(_CHUNK)
            try:
                found = self._zip.decompress(data, _CHUNK)
            except zlib.error as error:
                raise BrokenBackup(f"it cannot be unpacked ({error})") from error
            if found:
                self._buffer += found
                return True
            if not data:
                return False
        return False


def _decoded(data: bytes) -> Frame:
    try:
        frame: Frame = msgspec.msgpack.decode(data, type=list[Any])
    except msgspec.DecodeError as error:
        raise BrokenBackup(f"a frame cannot be read ({error})") from error
    if not frame or not isinstance(frame[0], str):
        raise BrokenBackup("a frame does not say of what kind it is")
    return frame
