"""Real models of random weights: texts that begin and end in between are what they are alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")
transformers = pytest.importorskip("transformers", reason="needs the extra torch")

from millstream.events import Event, SlotsAdvanced  # noqa: E402
from millstream.model.inference import CallOptions  # noqa: E402
from millstream_worker.inference.backends import Advanced, Joining  # noqa: E402
from millstream_worker.inference.backends.generation import Generator, Speech  # noqa: E402
from millstream_worker.inference.declared import parse_models  # noqa: E402
from millstream_worker.inference.service import InferenceService  # noqa: E402
from tests.inference.simulated import all_of  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default")]

VOCABULARY, END = 60, 59
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256,
    "bos_token_id": 0, "eos_token_id": END, "pad_token_id": 58,
}  # fmt: skip
GREEDY = {"max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another are slower than these models, on a busy machine by far."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256,
            bos_token_id=0, eos_token_id=END, pad_token_id=58,
        )
    )  # fmt: skip


def llama() -> Any:
    """Positions that turn, and queries that share keys."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL))


def mistral() -> Any:
    """It looks back at seven tokens."""
    return transformers.MistralForCausalLM(transformers.MistralConfig(**SMALL, sliding_window=7))


def without_tokens() -> Any:
    raise OSError("there is no tokenizer")


def generator(make: Any) -> Generator:
    torch.manual_seed(3)
    return Generator(make().eval(), without_tokens, torch.device("cpu"))


def prompt(number: int) -> list[int]:
    return [(7 * number + 3 * place) % 50 + 1 for place in range(1 + (5 * number) % 17)]


class Desk:
    """Advances a generator, and keeps what comes of it."""

    def __init__(self, made: Generator) -> None:
        self.generator = made
        self.ended: dict[int, list[int]] = {}
        self.written: dict[int, list[int]] = {}
        self.seen: list[Advanced] = []

    def advance(self, joining: Sequence[Joining] = (), leaving: Sequence[int] = ()) -> Advanced:
        done = self.generator.advance(joining, leaving)
        for number, tokens in done.written.items():
            self.written.setdefault(number, []).extend(tokens)
        self.ended |= {number: answer["tokens"] for number, answer in done.ended.items()}
        self.seen.append(done)
        return done


def joining(number: int, written: Sequence[int] = (), **options: Any) -> Joining:
    return Joining(
        number=number, payload=prompt(number), options={**GREEDY, **options}, written=written
    )


@pytest.mark.parametrize("make", [gpt2, llama, mistral])
def test_a_text_is_the_same_whoever_is_written_beside_it(make: Any) -> None:
    """Two join at every third token, with prompts and answers of every length."""
    made = generator(make)
    desk = Desk(made)
    lengths = {number: 1 + (11 * number) % 90 for number in range(12)}
    waiting = list(lengths)
    turn = 0
    while len(desk.ended) < len(lengths):
        new, waiting = (waiting[:2], waiting[2:]) if turn % 3 == 0 else ([], waiting)
        desk.advance([joining(n, max_new_tokens=lengths[n]) for n in new])
        turn += 1
        assert turn < 500
    for number, most in lengths.items():
        (alone,) = made.run([prompt(number)], {**GREEDY, "max_new_tokens": most})
        assert desk.ended[number] == alone["tokens"]
    # All have left, and nothing is held.
    assert desk.seen[-1].held == 0
    assert max(x.slots for x in desk.seen) > 4


def test_a_text_goes_on_from_what_was_written_of_it() -> None:
    """It lost its slot in the middle; what is held follows those that are there."""
    made = generator(llama)
    alone = {number: made.run([prompt(number)], GREEDY)[0]["tokens"] for number in range(20)}
    one, two, three = [number for number, tokens in alone.items() if len(tokens) == 12][:3]
    desk = Desk(made)
    desk.advance([joining(one), joining(two), joining(three)])
    desk.advance()
    held = desk.seen[-1].held
    before = list(desk.written[two])
    desk.advance(leaving=[two, three])
    assert 0 < desk.seen[-1].held <= held
    made.clear()
    desk.advance([joining(two, before)])
    while two not in desk.ended:
        desk.advance()
    assert desk.ended == {two: alone[two]}


def test_each_text_has_options_of_its_own() -> None:
    made = generator(gpt2)
    desk = Desk(made)
    torch.manual_seed(5)
    hot = joining(4, temperature=50.0)
    # The likeliest alone are what a greedy one takes.
    narrow = joining(6, temperature=50.0, top_p=1e-6)
    desk.advance([joining(5, max_new_tokens=3), hot, narrow, joining(7)])
    while len(desk.ended) < 4:
        desk.advance()
    assert desk.ended[5] == made.run([prompt(5)], {**GREEDY, "max_new_tokens": 3})[0]["tokens"]
    for number in (6, 7):
        assert desk.ended[number] == made.run([prompt(number)], GREEDY)[0]["tokens"]
    assert desk.ended[4] != made.run([prompt(4)], GREEDY)[0]["tokens"]


def test_a_model_that_keeps_a_state_writes_whole_texts() -> None:
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4,
        bos_token_id=0, eos_token_id=END, pad_token_id=58,
    )  # fmt: skip
    made = generator(lambda: transformers.MambaForCausalLM(config))
    desk = Desk(made)
    desk.advance([joining(3, max_new_tokens=4), joining(9, max_new_tokens=4), joining(5)])
    assert set(desk.ended) == {3, 9, 5}
    assert desk.ended[5] == made.run([prompt(5)], GREEDY)[0]["tokens"]


def test_text_is_said_in_whole_characters() -> None:
    """A character of several tokens comes with its last; together it is the whole text."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={x: n for n, x in enumerate(alphabet)}, merges=[])
    whole = tokenizers.Tokenizer(model)
    whole.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = tokenizers.decoders.ByteLevel()
    text = "the tide, die Gezeiten, 🌊 潮"
    tokens = whole.encode(text).ids

    speech = Speech(lambda: whole)
    pieces = [speech.add([token], last=n == len(tokens) - 1) for n, token in enumerate(tokens)]
    assert "".join(pieces) == text
    assert pieces[text.index("🌊")] != "🌊"  # its first byte says nothing
    assert not any("\ufffd" in piece for piece in pieces)
    # One that was moved in the middle of a character goes on where it was.
    for cut in range(1, len(tokens)):
        first, second = Speech(lambda: whole), Speech(lambda: whole, tokens[:cut])
        said = "".join(first.add([token]) for token in tokens[:cut])
        assert said + second.add(tokens[cut:], last=True) == text


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_calls_of_many_runs_are_written_together(tmp_path: Path, isolation: str) -> None:
    torch.manual_seed(3)
    made = llama()
    made.save_pretrained(tmp_path)
    spec = {
        "backend": "transformers", "path": str(tmp_path), "task": "generation", "device": "cpu",
        "batch_size": 4, "max_new_tokens": 6,
    }  # fmt: skip
    declared = parse_models({"isolation": isolation, "models": {"m": spec}})
    events: list[Event] = []
    async with InferenceService(declared, emit=events.append) as service:
        answers = await all_of(
            *(service.infer("m", [prompt(n)], CallOptions(), run=f"{n}") for n in range(10))
        )
    alone = generator(llama)
    options = {**GREEDY, "max_new_tokens": 6}
    assert [x[0]["tokens"] for x in answers] == [
        alone.run([prompt(n)], options)[0]["tokens"] for n in range(10)
    ]
    seen = [x for x in events if isinstance(x, SlotsAdvanced)]
    assert max(x.slots for x in seen) == 4
    assert sum(x.joined for x in seen) == sum(x.ended for x in seen) == 10
