"""An embedder without weights: words and their pieces, hashed into a vector.

It needs no model and no download, gives the same vector on every machine, and finds texts that
share words and stems. It knows nothing of meaning: it is there so that a program can be written
and tried before a model is chosen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from millstream.errors import MissingExtra
from millstream_worker.inference.backends import Backend, BackendOptions, Prepared
from millstream_worker.inference.footprint import Bytes

_WORD = re.compile(r"\w+", re.UNICODE)
#: Pieces of words count less than whole ones.
_PIECE, _PIECE_WEIGHT = 4, 0.35


class HashingBackend(Backend):
    """Embeds texts. Option ``dimensions`` (512) of the models' file."""

    padding = False
    step = 1
    max_length = 1_000_000
    settings: Mapping[str, Any] | None = {"dimensions": 512}

    def __init__(self, given: BackendOptions) -> None:
        super().__init__(given)
        self._dimensions = int(given.options.get("dimensions", 512))
        self._numpy = _numpy()
        self._places: dict[str, tuple[int, float]] = {}

    @property
    def guess(self) -> Bytes:
        """A vector an item, and a little for each word."""
        return Bytes(fixed=64 * 1024, per_item=16.0 * self._dimensions, per_token=256.0)

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        """Return the words of a text."""
        del options
        if not isinstance(item, str):
            raise TypeError(f"an embedder takes texts, not {type(item).__name__}")
        words = _WORD.findall(item.lower())
        return Prepared(words, max(1, len(words)))

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        """Return a vector of length 1 for each text; of an empty text, zeros."""
        del options
        np = self._numpy
        vectors = np.zeros((len(payloads), self._dimensions), dtype=np.float64)
        for row, words in zip(vectors, payloads, strict=True):
            for word in words:
                for piece, weight in _pieces(word):
                    place, sign = self._place(piece)
                    row[place] += sign * weight
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1.0)
        rounded: list[Any] = np.round(vectors, 6).tolist()
        return rounded

    def _place(self, piece: str) -> tuple[int, float]:
        found = self._places.get(piece)
        if found is None:
            if len(self._places) > 100_000:
                self._places.clear()
            hashed = hashlib.blake2b(piece.encode("utf-8", "replace"), digest_size=8).digest()
            number = int.from_bytes(hashed, "big")
            found = (number >> 1) % self._dimensions, 1.0 if number & 1 else -1.0
            self._places[piece] = found
        return found


def _pieces(word: str) -> list[tuple[str, float]]:
    if len(word) <= _PIECE:
        return [(word, 1.0)]
    edged = f"<{word}>"
    cut = [edged[i : i + _PIECE] for i in range(len(edged) - _PIECE + 1)]
    return [(word, 1.0), *((piece, _PIECE_WEIGHT) for piece in cut)]


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - imported with the first model
    except ImportError as error:
        raise MissingExtra("inference", "numpy") from error
    return np
