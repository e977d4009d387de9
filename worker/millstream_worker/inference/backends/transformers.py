"""Models of transformers, from a local directory: embedding, classification, reranking, text.

Promise: nothing is downloaded and no code of a model's directory is run. Inputs are tokenised
where they arrive, so a batch that is formed needs only to be padded and computed.

An input is a text; a pair ``[query, text]`` for reranking; a text, messages or token ids for
generation. Token ids are taken for every task.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream import __version__
from millstream.errors import ConfigError, MissingExtra
from millstream_worker.inference.backends import (
    Advanced,
    Backend,
    BackendOptions,
    Joining,
    Prepared,
    named,
)
from millstream_worker.inference.backends.generation import Generator
from millstream_worker.inference.backends.strides import BLOCK, READ_AT_ONCE
from millstream_worker.inference.footprint import Bytes
from millstream_worker.inference.heap import keep_memory
from millstream_worker.inference.shapes import padded

TASKS = ("embedding", "classification", "reranking", "generation")
_DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}


class TransformersBackend(Backend):
    """One model of one directory."""

    settings: Mapping[str, Any] | None = {
        "task": "embedding",
        "dtype": "auto",
        "attention": "sdpa",
        "pooling": "mean",
        "normalize": True,
        "truncate": True,
        "max_length": 0,
        "device_map": "",
        "max_new_tokens": 256,
        "continuous": True,
    }

    def __init__(self, given: BackendOptions) -> None:
        super().__init__(given)
        self._set = {**(self.settings or {}), **given.options}
        self.task = str(self._set["task"])
        if self.task not in TASKS:
            raise ConfigError(f"task of model {given.model!r} must be one of {', '.join(TASKS)}")
        if given.path is None or not (given.path / "config.json").is_file():
            raise ConfigError(
                f"model {given.model!r}: path must be a directory with a model (its config.json)"
            )
        self._path = given.path
        self._config = json.loads((given.path / "config.json").read_text("utf-8"))
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._quick: Any = None
        self._model: Any = None
        self._device: Any = None
        self._generator: Generator | None = None
        self.max_length = self._longest()
        if self.task == "generation":
            self.continuous = bool(self._set["continuous"])
            # Memory is taken for so many tokens at once then.
            self.step = BLOCK if self.continuous else self.step
            self.call_options = {
                "max_new_tokens": int(self._set["max_new_tokens"]),
                "temperature": 0.0,
                "top_p": 1.0,
            }

    @property
    def identity(self) -> str:
        """The shape of the model, its files, how it is run, and by which releases."""
        libraries = [importlib.metadata.version(x) for x in ("torch", "transformers")]
        files = sorted((x.name, x.stat().st_size) for x in self._files())
        return named("transformers", self._set, self._config, files, libraries, __version__)

    @property
    def weights(self) -> int:
        """The size of the files, which is what they take in memory, or more."""
        return sum(x.stat().st_size for x in self._files())

    def _files(self) -> list[Path]:
        return [x for x in self._path.iterdir() if x.suffix in {".safetensors", ".bin"}]

    @property
    def guess(self) -> Bytes:
        """From the shape of the model: what one layer needs at once, and the logits."""
        hidden = int(self._config.get("hidden_size", 768))
        wide = int(self._config.get("intermediate_size", 4 * hidden))
        size = _DTYPES.get(str(self._set["dtype"]), 4)
        token = size * (6.0 * hidden + 2.0 * wide)
        if self.task != "generation":
            return Bytes(fixed=8 << 20, per_item=4096.0, per_token=token)
        layers = int(self._config.get("num_hidden_layers", 12))
        # Keys and values of every layer. Heads of queries may share them.
        heads = int(self._config.get("num_attention_heads", 1))
        shared = int(self._config.get("num_key_value_heads", heads))
        kept = 2.0 * size * layers * hidden * shared / heads
        # Logits of the last position alone, as they are, in float, and sorted to draw from.
        row = 16.0 * int(self._config.get("vocab_size", 32_000))
        if not self.continuous:
            return Bytes(fixed=8 << 20, per_item=row, per_token=token + kept)
        # Prompts are read so many tokens at a time, however many texts there are.
        return Bytes(fixed=(8 << 20) + READ_AT_ONCE * token, per_item=row, per_token=kept)

    # -- before the batch ----------------------------------------------------------------------

    def prepare(self, item: Any, options: Mapping[str, Any]) -> Prepared:
        """Return the token ids of an input."""
        ids = list(item) if _is_ids(item) else self._tokenised(item)
        if not ids:
            raise ValueError("there is nothing in it")
        if self.task == "generation":
            # The answer takes its place beside the prompt.
            return Prepared(ids, len(ids) + int(options["max_new_tokens"]))
        return Prepared(ids, len(ids))

    def sample(self, length: int) -> Any:
        """Return a payload of a length; generation is measured by its first batches."""
        if self.task == "generation" or length > (self.max_length or length):
            return None
        return [min(5, int(self._config.get("vocab_size", 100)) - 1)] * length

    def _tokenised(self, item: Any) -> list[int]:
        tokenizer = self._tokens()
        ids: list[int]
        if self.task == "generation" and isinstance(item, list):
            ids = tokenizer.apply_chat_template(
                item, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        elif self._quick is not None:
            ids = self._quick.encode(*self._texts(item)).ids
        else:
            ids = tokenizer(*self._texts(item), **self._cut())["input_ids"]
        return ids

    def _texts(self, item: Any) -> Sequence[str]:
        if self.task == "reranking":
            query, text = item
            # As the tokenisers of the library have it: nothing is no second text.
            return (query, text) if text else (query,)
        if not isinstance(item, str):
            raise TypeError(f"{self.task} takes texts or token ids, not {type(item).__name__}")
        return (item,)

    def _cut(self) -> dict[str, Any]:
        if self._set["truncate"] and self.max_length and self.task != "generation":
            return {"truncation": True, "max_length": self.max_length}
        return {}

    def _tokens(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                _, transformers = _libraries()
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    self._path, local_files_only=True
                )
                self._quick = self._without_wrapping(tokenizer)
                self._tokenizer = tokenizer
            return self._tokenizer

    def _without_wrapping(self, tokenizer: Any) -> Any:
        """Return the compiled part of a tokenizer, set to give what a call of the whole gives.

        The rest is fifty calls of Python a text, which is most of its time, on the event loop.
        """
        if not getattr(tokenizer, "is_fast", False) or self.task == "generation":
            return None
        quick = tokenizer.backend_tokenizer
        quick.no_padding()
        if cut := self._cut():
            quick.enable_truncation(cut["max_length"], direction=tokenizer.truncation_side)
        else:
            quick.no_truncation()
        return quick

    # -- on the device -------------------------------------------------------------------------

    def load(self, device: str) -> None:
        """Bring the model to a device, or spread it over all where ``device_map`` says so."""
        torch, transformers = _libraries()
        kind = {
            "embedding": transformers.AutoModel,
            "generation": transformers.AutoModelForCausalLM,
        }.get(self.task, transformers.AutoModelForSequenceClassification)
        options: dict[str, Any] = {
            "local_files_only": True,
            "dtype": self._set["dtype"],
            "attn_implementation": self._set["attention"],
        }
        if self._set["device_map"]:
            options["device_map"] = self._set["device_map"]
        model = kind.from_pretrained(self._path, **options).eval()
        self._model = model if self._set["device_map"] else model.to(device)
        self._device = torch.device(device)
        if self._device.type == "cuda":
            # cuDNN's attention makes a plan for each shape that it has not seen, which takes
            # longer than the batch. A batcher that forms groups shows it hundreds of shapes.
            torch.backends.cuda.enable_cudnn_sdp(False)
        elif self._device.type == "cpu":
            keep_memory()
        if self.task == "generation":
            self._generator = Generator(self._model, self._tokens, self._device)

    def unload(self) -> None:
        """Let go of the model."""
        self._model = self._generator = None

    def advance(self, joining: Sequence[Joining], leaving: Sequence[int]) -> Advanced:
        """Write one token of each text that has a slot."""
        assert self._generator is not None
        return self._generator.advance(joining, leaving)

    def clear(self) -> None:
        """Let go of the texts that are being written."""
        if self._generator is not None:
            self._generator.clear()

    def run(self, payloads: Sequence[Any], options: Mapping[str, Any]) -> Sequence[Any]:
        """Compute a batch."""
        torch, _ = _libraries()
        if self._generator is not None:
            return self._generator.run(payloads, options)
        with torch.inference_mode():
            ids, mask = self._padded(torch, payloads)
            answer = self._model(input_ids=ids, attention_mask=mask)
            if self.task == "embedding":
                return self._vectors(torch, answer.last_hidden_state, mask)
            return self._scores(torch, answer.logits.float())

    def _padded(self, torch: Any, payloads: Sequence[Any]) -> tuple[Any, Any]:
        # Rounded up, so that the device sees few shapes; never beyond what the model can.
        longest = padded(max(map(len, payloads)), self.step)
        longest = min(longest, self.max_length or longest)
        pad = int(self._config.get("pad_token_id") or 0)
        # One tensor of the whole: one for each row costs more than a small model.
        rows = [[*each, *[pad] * (longest - len(each))] for each in payloads]
        ids = torch.tensor(rows, dtype=torch.long).to(self._device)
        lengths = torch.tensor(list(map(len, payloads))).to(self._device)
        places = torch.arange(longest, device=self._device)
        return ids, (places < lengths.unsqueeze(1)).long()

    def _vectors(self, torch: Any, hidden: Any, mask: Any) -> list[Any]:
        pooling = self._set["pooling"]
        if pooling == "cls":
            pooled = hidden[:, 0]
        elif pooling == "last":
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
        else:
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        pooled = pooled.float()
        if self._set["normalize"]:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        rounded: list[Any] = pooled.cpu().double().numpy().round(6).tolist()
        return rounded

    def _scores(self, torch: Any, logits: Any) -> list[Any]:
        if logits.shape[-1] == 1:
            scores: list[Any] = torch.sigmoid(logits[:, 0]).cpu().double().numpy().round(6).tolist()
            return scores
        rows = torch.softmax(logits, dim=-1).cpu().double().numpy().round(6).tolist()
        names = self._model.config.id2label
        return [_labelled(row, names) for row in rows]

    def _longest(self) -> int | None:
        said = int(self._set["max_length"]) or int(self._config.get("max_position_embeddings", 0))
        return said or None


def _labelled(row: list[float], names: Mapping[int, str]) -> dict[str, Any]:
    best = max(range(len(row)), key=row.__getitem__)
    return {
        "label": names[best],
        "score": row[best],
        "scores": {names[i]: score for i, score in enumerate(row)},
    }


def _is_ids(item: Any) -> bool:
    return isinstance(item, list | tuple) and bool(item) and all(type(x) is int for x in item)


def _libraries() -> tuple[Any, Any]:
    try:
        # Memory that grows in place leaves no pieces; it is set before CUDA starts, or never.
        if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
            os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
        import torch  # noqa: PLC0415 - hundreds of megabytes: only once a model needs it
        import transformers  # noqa: PLC0415 - the same
    except ImportError as error:
        raise MissingExtra("torch", error.name or "torch") from error
    return torch, transformers
