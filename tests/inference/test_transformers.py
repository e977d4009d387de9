"""Real models of random weights: what a batch gives is what each input gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")
transformers = pytest.importorskip("transformers", reason="needs the extra torch")

from millstream.errors import ConfigError, ItemTooLarge  # noqa: E402
from millstream.events import BatchRan, Event  # noqa: E402
from millstream.model.inference import CallOptions  # noqa: E402
from millstream_worker.inference.backends import BackendOptions  # noqa: E402
from millstream_worker.inference.backends.transformers import TransformersBackend  # noqa: E402
from millstream_worker.inference.declared import parse_models  # noqa: E402
from millstream_worker.inference.service import InferenceService  # noqa: E402
from tests.inference.simulated import all_of  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default")]


def small(**facts: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=96, **facts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    transformers.BertModel(small()).save_pretrained(path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sea", "tide", "moon", "compiler"]
    (path / "vocab.txt").write_text("\n".join(words), "utf-8")
    transformers.BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judge")
    torch.manual_seed(2)
    config = small(id2label={0: "calm", 1: "storm"}, label2id={"calm": 0, "storm": 1})
    transformers.BertForSequenceClassification(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("writer")
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128,
        bos_token_id=0, eos_token_id=59, pad_token_id=58,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


def backend(path: Path, **options: Any) -> TransformersBackend:
    made = TransformersBackend(BackendOptions(model="m", path=path, options=options))
    made.load("cpu")
    return made


def close(one: Any, other: Any, by: float = 2e-5) -> bool:
    return bool(torch.allclose(torch.tensor(one), torch.tensor(other), atol=by))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_padding_changes_no_vector(bert: Path, pooling: str) -> None:
    """Or an answer would depend on who else was asking."""
    model = backend(bert, pooling=pooling)
    inputs = [[5] * n + [6, 7] for n in (1, 3, 17, 60)]
    together = model.run(inputs, {})
    alone = [model.run([each], {})[0] for each in inputs]
    assert close(together, alone)
    assert all(abs(sum(x * x for x in row) - 1) < 1e-3 for row in together)


def test_texts_are_tokenised_and_cut_to_what_the_model_takes(bert: Path) -> None:
    model = backend(bert)
    assert model.prepare("sea tide moon", {}).length == 5
    assert model.prepare("sea " * 500, {}).length == 96


@pytest.mark.parametrize("task", ["embedding", "reranking"])
@pytest.mark.parametrize("longest", [0, 9])
def test_the_quick_tokeniser_gives_what_the_whole_one_gives(
    bert: Path, task: str, longest: int
) -> None:
    """Cut where they are too long, in pairs, with words that nobody knows: id for id."""
    model = backend(bert, task=task, max_length=longest)
    texts = ["sea", "", "sea unknown, tide! moon", "tide moon " * 60]
    inputs: list[Any] = [[one, other] for one in texts for other in texts]
    if task == "embedding":
        inputs = list(texts)
    for each in inputs:
        given = each if task == "reranking" else (each,)
        whole = model._tokens()(*given, truncation=True, max_length=model.max_length)
        assert model._quick is not None
        assert model.prepare(each, {}).payload == whole["input_ids"]


def test_a_class_comes_with_its_name(judge: Path) -> None:
    model = backend(judge, task="classification")
    (answer,) = model.run([[5, 6, 7]], {})
    assert answer["label"] in {"calm", "storm"}
    assert abs(sum(answer["scores"].values()) - 1) < 1e-5
    assert answer["score"] == max(answer["scores"].values())


def test_what_is_written_does_not_depend_on_the_batch(writer: Path) -> None:
    model = backend(writer, task="generation")
    options = {"max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0}
    prompts = [[1, 2, 3], [4] * 12, [7, 8]]
    together = model.run(prompts, options)
    alone = [model.run([each], options)[0] for each in prompts]
    assert [x["tokens"] for x in together] == [x["tokens"] for x in alone]
    assert all(len(x["tokens"]) <= 6 for x in together)


def test_a_directory_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="path must be a directory with a model"):
        TransformersBackend(BackendOptions(model="m", path=tmp_path, options={}))


async def test_calls_of_many_runs_are_batched_on_a_real_model(bert: Path) -> None:
    events: list[Event] = []
    declared = parse_models(
        {"models": {"m": {"backend": "transformers", "path": str(bert), "device": "cpu"}}}
    )
    async with InferenceService(declared, emit=events.append) as service:
        service.attend(lambda: 40)
        inputs = [[5] * (1 + n) for n in range(40)]
        asked = [
            service.infer("m", [each], CallOptions(), run=f"{n}") for n, each in enumerate(inputs)
        ]
        answers = await all_of(*asked)
        with pytest.raises(ItemTooLarge, match="it takes at most 96"):
            await service.infer("m", [[5] * 97], CallOptions(), run="x")
    model = backend(bert)
    assert close([x[0] for x in answers], [model.run([each], {})[0] for each in inputs])
    batches = [x for x in events if isinstance(x, BatchRan)]
    assert sum(x.items for x in batches) == 40
    assert len(batches) <= 8


async def test_a_model_in_a_process_of_its_own_answers_the_same(bert: Path) -> None:
    model = {"backend": "transformers", "path": str(bert), "device": "cpu"}
    declared = parse_models({"isolation": "process", "models": {"m": model}})
    async with InferenceService(declared, emit=lambda _: None) as service:
        answers = await service.infer("m", [[5, 6], [7] * 9], CallOptions(), run="r")
    here = backend(bert)
    assert close(answers, [here.run([[5, 6]], {})[0], here.run([[7] * 9], {})[0]])
