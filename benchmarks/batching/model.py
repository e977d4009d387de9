"""The model that every system computes with: an encoder of random weights, and one forward pass."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from millstream_worker.inference.heap import keep_memory
from millstream_worker.inference.interpreter import take_turns
from millstream_worker.inference.shapes import padded


class Forward:
    """Pads a batch, computes it, and returns one number an item. Counts what it computed."""

    def __init__(self, device: str) -> None:
        # As our own backend does: memory that grows in place leaves no pieces.
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        import torch  # noqa: PLC0415 - the benchmark says itself when it is missing
        import transformers  # noqa: PLC0415 - the same

        self.torch = torch
        self.device = device
        cuda = device != "cpu"
        if cuda:
            # As our own backend does: it would make a plan anew for every shape of a batch.
            torch.backends.cuda.enable_cudnn_sdp(False)
        else:
            keep_memory()  # as our own backend does, for everybody
        take_turns()  # as our own device's thread does, for everybody
        size = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
        if not cuda:
            size = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
            # The other core is for the callers and whoever batches them.
            torch.set_num_threads(1)
        config = transformers.BertConfig(
            **size,
            intermediate_size=4 * size["hidden_size"],
            vocab_size=8192,
            max_position_embeddings=512,
            attn_implementation="sdpa",
        )
        torch.manual_seed(0)
        self.dtype = torch.bfloat16 if cuda else torch.float32
        self.model = transformers.BertModel(config, add_pooling_layer=False)
        self.model = self.model.to(device=device, dtype=self.dtype).eval()
        self.batches = self.items = self.computed = 0
        self.busy_s = 0.0

    @property
    def weights(self) -> int:
        """Bytes of the model."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    def __call__(self, batch: Sequence[Sequence[int]]) -> list[float]:
        """Compute a batch."""
        torch, began = self.torch, time.perf_counter()
        longest = min(512, padded(max(map(len, batch)), 8))
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, each in enumerate(batch):
            ids[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        with torch.inference_mode():
            ids, mask = ids.to(self.device), mask.to(self.device)
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1)
            # The copy waits for the device: what is timed has been computed.
            answer: list[float] = pooled.float().mean(1).cpu().tolist()
        self.batches += 1
        self.items += len(batch)
        self.computed += len(batch) * longest
        self.busy_s += time.perf_counter() - began
        return answer

    def reset(self) -> None:
        """Count from zero."""
        self.batches = self.items = self.computed = 0
        self.busy_s = 0.0

    def warm(self, lengths: Sequence[int]) -> None:
        """Compute every shape once, so that nobody pays for the first time."""
        for length in sorted({padded(x, 8) for x in lengths}):
            for items in (1, 4, 16, 32):
                self([[5] * length] * items)

    def facts(self) -> dict[str, Any]:
        """Return what was measured on."""
        torch = self.torch
        name = torch.cuda.get_device_name(0) if self.device != "cpu" else "cpu"
        return {
            "device": name,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "hidden": self.model.config.hidden_size,
            "layers": self.model.config.num_hidden_layers,
            "dtype": str(self.dtype),
        }
