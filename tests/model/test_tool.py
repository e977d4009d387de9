"""An answer comes out of the journal as it went in, although what follows from it is left out."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from millstream.model.tool import ToolResult

_texts = st.text(max_size=20) | st.sampled_from(["1", "{}", '{"a": 1}', "null", "[", ""])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_blocks = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, _texts)
    | st.just({"type": "image", "data": "aGk=", "mimeType": "image/png"}),
    max_size=3,
)


@given(_blocks, st.none() | st.dictionaries(_texts, _json, max_size=3), st.booleans())
def test_a_servers_answer_survives_the_journal(
    blocks: list[dict[str, Any]], structured: Any, is_error: bool
) -> None:
    answer = ToolResult.of(blocks, structured, is_error=is_error)
    stored = msgspec.json.decode(msgspec.json.encode(answer.packed()))
    assert ToolResult.unpacked(stored) == answer


@given(_json, _texts, st.booleans())
def test_an_answer_without_blocks_survives_too(data: Any, text: str, is_error: bool) -> None:
    answer = ToolResult(data=data, text=text, is_error=is_error)
    stored = msgspec.json.decode(msgspec.json.encode(answer.packed()))
    assert ToolResult.unpacked(stored) == answer


def test_a_text_is_stored_once() -> None:
    answer = ToolResult.of([{"type": "text", "text": "x" * 1000}], None, is_error=False)
    assert len(msgspec.json.encode(answer.packed())) < 1100
