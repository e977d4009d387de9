"""Files are searched for the words of commits, and the batches that form are read from logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from millstream.cli.demo import batches, searching
from millstream.cli.demo.searching import Hit, Passage
from millstream.events import BatchRan
from millstream.telemetry.logs import event_fields
from millstream_worker.inference.backends import BackendOptions
from millstream_worker.inference.backends.hashing import HashingBackend
from tests.demo.made import Made
from tests.telemetry.examples import EXAMPLES


def vectors(*texts: str) -> list[list[float]]:
    model = HashingBackend(BackendOptions(model="m", path=None, options={}))
    return [list(x) for x in model.run([model.prepare(text, {}).payload for text in texts], {})]


def test_the_passage_that_shares_its_words_is_found() -> None:
    asked = ["Raise the timeout of the parser", "Describe installation on a tablet"]
    passages = [
        Passage(1, "import os\nimport sys"),
        Passage(13, "def raise_timeout(parser):\n    parser.timeout *= 2"),
    ]
    found = searching.closest(
        "a.py", asked, passages, vectors(*asked, *(passage.text for passage in passages))
    )
    assert [(hit.question, hit.line) for hit in found] == [(asked[0], 13)]
    assert "`a.py:13`" in "\n".join(searching.chapter(found))


def test_of_several_files_the_nearest_wins() -> None:
    hits = [Hit("q", "far.py", 1, 0.4), Hit("q", "near.py", 5, 0.8), Hit("p", "far.py", 1, 0.5)]
    found = searching.best(hits)
    assert [(x.question, x.path) for x in found] == [("q", "near.py"), ("p", "far.py")]
    assert "No passage" in "\n".join(searching.chapter([]))


def test_a_long_file_is_cut_into_passages_from_all_over_it(made: Made) -> None:
    """Their vectors have to fit into one record."""
    made.commit("Ada", "Much", {"much.py": "".join(f"x_{n} = {n}\n" for n in range(5000))})
    found = searching.cut(str(made.path), "much.py")
    assert len(found) <= 48
    assert found[0].line == 1
    assert found[-1].line > 4500


def _line(**facts: Any) -> str:
    batch = {
        "event": "batch_ran", "items": 4, "tokens": 40, "longest": 25, "runs": ["q/a", "q/b"],
        "took_s": 0.002, **facts,
    }  # fmt: skip
    return json.dumps(batch)


def test_batches_are_read_as_the_logs_grow(tmp_path: Path) -> None:
    """A line that is half written is read once it is whole; batches that failed are none."""
    log = tmp_path / "log"
    log.write_text(
        f'no json\n{{"event":"run_taken","of":"batch_ran"}}\n{_line(fault="memory")}\n', "utf-8"
    )
    reader = batches.Reader({"A": log})
    assert reader.news() == []
    whole = _line()
    with log.open("a", encoding="utf-8") as file:
        file.write(whole[:30])
        file.flush()
        assert reader.news() == []
        file.write(f"{whole[30:]}\n")
        file.flush()
        (batch,) = reader.news()
        assert str(batch) == "A: 4 inputs of 2 runs in 2 ms, 10 words each, 25 at most"
        assert reader.news() == []
    assert "4 inputs in 1 batch, 1 of them shared" in batches.in_one_line([batch])
    assert "| 2 | 1 | 4 | 4.0 | 2.0 |" in "\n".join(batches.chapter([batch]))


def test_what_workers_log_of_a_batch_is_what_is_read() -> None:
    """The names of the fields are those of the event."""
    event = next(x for x in EXAMPLES if isinstance(x, BatchRan) and x.fault is None)
    assert {"items", "tokens", "longest", "runs", "took_s"} <= set(event_fields(event))
