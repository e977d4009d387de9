"""Text generation: padded on the left and step by step, or batched anew at every step.

Where transformers offers it (CUDA), the prompts of a batch go through its continuous batching: an
answer that is short leaves its place to another prompt while the long ones go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Generator:
    """A loaded model that writes. ``share`` above 0: that part of free memory is for keys."""

    def __init__(
        self, model: Any, tokenizer: Callable[[], Any], device: Any, share: float = 0.0
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._share = share if hasattr(model, "generate_batch") else 0.0

    def run(self, payloads: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        """Return ``text`` and ``tokens`` for each prompt."""
        if self._share:
            return self._continuous(payloads, options)
        return self._padded(payloads, options)

    def close(self) -> None:
        """End what runs in the background."""
        destroy = getattr(self._model, "destroy_cached_continuous_batching_manager", None)
        if self._share and destroy is not None:
            destroy()

    def _padded(self, payloads: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        import torch  # noqa: PLC0415 - loaded with the model

        longest = max(map(len, payloads))
        pad = self._pad()
        ids = torch.full((len(payloads), longest), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(payloads):
            # On the left: what is written next must follow the prompt, not the padding.
            ids[row, longest - len(each) :] = torch.tensor(each, dtype=torch.long)
            mask[row, longest - len(each) :] = 1
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                generation_config=self._config(options),
            )
        rows = written[:, longest:].cpu().tolist()
        return [self._answer(row) for row in rows]

    def _continuous(self, payloads: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        from transformers.generation import ContinuousBatchingConfig  # noqa: PLC0415 - as above

        found = self._model.generate_batch(
            inputs=[list(each) for each in payloads],
            generation_config=self._config(options),
            continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=self._share),
            progress_bar=False,
            persistent_manager=True,
        )
        # Under names that it made itself, in the order of the prompts.
        answers = [found[name] for name in sorted(found, key=_number)]
        if len(answers) != len(payloads):
            raise RuntimeError(f"{len(answers)} answers for {len(payloads)} prompts")
        return [
            ValueError(str(each.error)) if each.error else self._answer(each.generated_tokens)
            for each in answers
        ]

    def _config(self, options: Mapping[str, Any]) -> Any:
        from transformers import GenerationConfig  # noqa: PLC0415 - loaded with the model

        temperature = float(options["temperature"])
        sampled = {"temperature": temperature, "top_p": float(options["top_p"])}
        return GenerationConfig(
            max_new_tokens=int(options["max_new_tokens"]),
            do_sample=temperature > 0,
            pad_token_id=self._pad(),
            eos_token_id=self._model.config.eos_token_id,
            **(sampled if temperature > 0 else {}),
        )

    def _pad(self) -> int:
        config = self._model.config
        pad = getattr(config, "pad_token_id", None)
        end = config.eos_token_id
        found = pad if pad is not None else end
        return int(found[0] if isinstance(found, list) else found or 0)

    def _answer(self, row: Sequence[int]) -> dict[str, Any]:
        ends = self._model.config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        tokens = []
        for token in row:
            if token in ends:
                break
            tokens.append(int(token))
        try:
            text = self._tokenizer().decode(tokens, skip_special_tokens=True)
        except (OSError, ValueError):
            text = ""  # a model that came without a tokenizer was asked with token ids
        return {"text": text, "tokens": tokens}


def _number(name: str) -> tuple[int, str]:
    digits = "".join(x for x in name if x.isdigit())
    return int(digits or 0), name
