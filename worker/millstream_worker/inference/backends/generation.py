"""Text generation: padded on the left and step by step, or batched anew at every step.

Where transformers offers it (CUDA), the prompts of a batch go through its continuous batching: an
answer that is short leaves its place to another prompt while the long ones go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

#: Between two looks whether what generates still runs.
_LOOK_S = 1.0


class Generator:
    """A loaded model that writes. ``share`` above 0: that part of free memory is for keys."""

    def __init__(
        self, model: Any, tokenizer: Callable[[], Any], device: Any, share: float = 0.0
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._share = share if hasattr(model, "continuous_batching_context_manager") else 0.0
        self._running = ExitStack()
        self._manager: Any = None
        self._sampling = 0.0, 0.0

    def run(self, payloads: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        """Return ``text`` and ``tokens`` for each prompt."""
        if self._share:
            return self._continuous(payloads, options)
        return self._padded(payloads, options)

    def close(self) -> None:
        """End what runs in the background."""
        self._manager = None
        self._running.close()

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
        manager = self._managed(options)
        longest = int(options["max_new_tokens"])
        names = manager.add_requests([list(each) for each in payloads], max_new_tokens=longest)
        found: dict[str, Any] = {}
        while len(found) < len(names):
            result = manager.get_result(timeout=_LOOK_S)
            if result is None and not manager.is_running():
                self.close()
                raise RuntimeError("the generation of transformers has ended by itself")
            if result is not None and result.is_finished():
                found[result.request_id] = result
        return [self._told(found[name]) for name in names]

    def _managed(self, options: Mapping[str, Any]) -> Any:
        """Return what generates with these options, running.

        One that is cached by ``generate_batch`` would keep the sampling of the first call for
        all, and the size of its batch; and each call would stop and start it.
        """
        from transformers.generation import ContinuousBatchingConfig  # noqa: PLC0415 - as above

        sampling = float(options["temperature"]), float(options["top_p"])
        if self._manager is None or sampling != self._sampling:
            self.close()
            self._manager = self._running.enter_context(
                self._model.continuous_batching_context_manager(
                    generation_config=self._config(options),
                    continuous_batching_config=ContinuousBatchingConfig(
                        max_memory_percent=self._share
                    ),
                )
            )
            self._sampling = sampling
        return self._manager

    def _told(self, result: Any) -> Any:
        if result.error:
            return ValueError(str(result.error))
        return self._answer(result.generated_tokens)

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
