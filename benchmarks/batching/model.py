"""The model that every system computes with: an encoder of random weights, and one forward pass."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from millstream_worker.inference.heap import keep_memory
from millstream_worker.inference.interpreter import take_turns
from millstream_worker.inference.shapes import padded

#: Hidden size, layers and heads by name. On a device the base is bound by the Python of its layers;
#: the large one (1.2 billion weights) by its arithmetic.
SIZES = {"small": (96, 2, 2), "base": (768, 12, 12), "large": (2048, 24, 16)}


class Forward:
    """Pads a batch, computes it, and returns one number an item. Counts what it computed.

    ``size`` is one of `SIZES`.
    """

    def __init__(self, device: str, size: str = "") -> None:
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
        if not cuda:
            # The other core is for the callers and whoever batches them.
            torch.set_num_threads(1)
        self.size = size or ("base" if cuda else "small")
        hidden, layers, heads = SIZES[self.size]
        config = transformers.BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            vocab_size=8192,
            max_position_embeddings=512,
            attn_implementation="sdpa",
        )
        torch.manual_seed(0)
        self.dtype = torch.bfloat16 if cuda else torch.float32
        with torch.device(device):  # a large one takes long to make elsewhere
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
        with torch.inference_mode():
            # As our own backend does, for everybody: two copies to the device, whatever is in it.
            ids = torch.tensor([[*each, *[0] * (longest - len(each))] for each in batch])
            lengths = torch.tensor([len(each) for each in batch])
            ids, lengths = ids.to(self.device), lengths.to(self.device)
            mask = (torch.arange(longest, device=self.device) < lengths.unsqueeze(1)).long()
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

    def warm(self) -> None:
        """Compute shapes of all sizes once, so that nobody pays for the first time."""
        for length in (8, 16, 32, 64, 128, 256, 512) if self.device != "cpu" else (16, 64):
            for items in (1, 4, 16, 32):
                self([[5] * length] * items)

    def facts(self) -> dict[str, Any]:
        """Return what was measured on."""
        torch = self.torch
        name = torch.cuda.get_device_name(0) if self.device != "cpu" else "cpu"
        return {
            "device": name,
            "size": self.size,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "hidden": self.model.config.hidden_size,
            "layers": self.model.config.num_hidden_layers,
            "dtype": str(self.dtype),
        }
