"""Text generation: token by token, with texts that begin and end in between.

A model that the decoder does not know writes whole texts instead, padded on the left, with the
loop of transformers: what joins then is through when `advance` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from millstream_worker.inference.backends import Advanced, Joining

if TYPE_CHECKING:
    from millstream_worker.inference.backends.decoder import Decoder, Row

#: What stands for a character whose bytes are not all there yet.
_INCOMPLETE = "\ufffd"


class Generator:
    """A loaded model that writes."""

    def __init__(self, model: Any, tokenizer: Callable[[], Any], device: Any) -> None:
        from millstream_worker.inference.backends import decoder  # noqa: PLC0415 - imports torch

        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._make_row = decoder.Row
        self._ends = _ends_of(model)
        self._decoder: Decoder | None = None
        if decoder.can_decode(model):
            self._decoder = decoder.Decoder(model, device, self._ends, self._pad())
        #: What is written of those that are listened to.
        self._heard: dict[int, Speech] = {}
        #: What they had when they joined.
        self._before: dict[int, Sequence[int]] = {}

    def run(self, payloads: Sequence[list[int]], options: Mapping[str, Any]) -> list[Any]:
        """Return ``text`` and ``tokens`` for each prompt, once the longest is through."""
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

    def advance(self, joining: Sequence[Joining], leaving: Sequence[int]) -> Advanced:
        """Take in, let go, and write one token of each."""
        if self._decoder is None:
            return self._whole(joining)
        decoder = self._decoder
        decoder.begin()
        decoder.leave(leaving)
        for number in leaving:
            self._forget(number)
        rows = [self._row(each) for each in joining]
        present = [*decoder.rows, *rows]
        marks = [len(row.written) for row in present]
        read = decoder.join(rows)
        slots = decoder.write()
        ended = {row.number: self._through(row) for row in present if row.done}
        return Advanced(
            ended=ended,
            written={
                row.number: row.written[mark:]
                for row, mark in zip(present, marks, strict=True)
                if not row.done
            },
            texts=self._said(present, marks, ended),
            read=read,
            wrote=sum(len(row.written) - mark for row, mark in zip(present, marks, strict=True)),
            slots=max(slots, len(rows)),
            longest=decoder.longest,
            taken=decoder.used,
            held=decoder.bytes,
        )

    def clear(self) -> None:
        """Let go of all that is being written."""
        self._heard, self._before = {}, {}
        if self._decoder is not None:
            self._decoder.clear()

    def _row(self, joining: Joining) -> Row:
        options, written = joining.options, joining.written
        self._before[joining.number] = written
        if joining.heard:
            self._heard[joining.number] = Speech(self._tokenizer, written)
        return self._make_row(
            number=joining.number,
            prompt=[*joining.payload, *written],
            left=int(options["max_new_tokens"]) - len(written),
            temperature=float(options["temperature"]),
            top_p=float(options["top_p"]),
        )

    def _through(self, row: Row) -> dict[str, Any]:
        return self._answer([*self._before[row.number], *row.written])

    def _said(
        self, rows: Iterable[Row], marks: Iterable[int], ended: Mapping[int, Any]
    ) -> dict[int, str]:
        texts = {}
        for row, mark in zip(rows, marks, strict=True):
            speech = self._heard.get(row.number)
            if speech is not None:
                text = speech.add(row.written[mark:], last=row.done)
                if text:
                    texts[row.number] = text
        for number in ended:
            self._forget(number)
        return texts

    def _forget(self, number: int) -> None:
        self._heard.pop(number, None)
        self._before.pop(number, None)

    def _whole(self, joining: Sequence[Joining]) -> Advanced:
        """Write texts to their end, those of the same options together."""
        found: dict[int, Any] = {}
        texts: dict[int, str] = {}
        known = sorted(joining, key=lambda each: sorted(each.options.items()))
        for options, group in groupby(known, key=lambda each: each.options):
            members = list(group)
            answers = self.run([list(each.payload) for each in members], options)
            found |= {each.number: answer for each, answer in zip(members, answers, strict=True)}
        for each in joining:
            if each.heard:
                texts[each.number] = found[each.number]["text"]
        return Advanced(
            ended=found,
            written={},
            texts=texts,
            read=sum(len(each.payload) for each in joining),
            wrote=sum(len(answer["tokens"]) for answer in found.values()),
            slots=len(joining),
            longest=max((len(each.payload) for each in joining), default=0),
        )

    def _config(self, options: Mapping[str, Any]) -> Any:
        from transformers import GenerationConfig  # noqa: PLC0415 - loaded with the model

        temperature = float(options["temperature"])
        sampled = {"temperature": temperature, "top_p": float(options["top_p"])}
        return GenerationConfig(
            max_new_tokens=int(options["max_new_tokens"]),
            do_sample=temperature > 0,
            pad_token_id=self._pad(),
            eos_token_id=sorted(self._ends) or None,
            **(sampled if temperature > 0 else {}),
        )

    def _pad(self) -> int:
        pad = getattr(self._model.config, "pad_token_id", None)
        return int(pad if pad is not None else min(self._ends, default=0))

    def _answer(self, row: Sequence[int]) -> dict[str, Any]:
        tokens = []
        for token in row:
            if token in self._ends:
                break
            tokens.append(int(token))
        return {"text": decoded(self._tokenizer, tokens), "tokens": tokens}


class Speech:
    """The text of tokens as they come. What a later token may still change is held back."""

    def __init__(self, tokenizer: Callable[[], Any], before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        #: The latest tokens that were said, and those that were not: a word depends on those
        #: before it, and never on all of them.
        self._tokens = list(before)
        self._said = len(before)

    def add(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """Return what can be said with these tokens."""
        self._tokens += tokens
        context = decoded(self._tokenizer, self._tokens[: self._said]).rstrip(_INCOMPLETE)
        text = decoded(self._tokenizer, self._tokens)
        if len(text) <= len(context) or (text.endswith(_INCOMPLETE) and not last):
            return ""
        self._tokens = self._tokens[self._said :] or self._tokens
        self._said = len(self._tokens)
        return text[len(context) :]


def decoded(tokenizer: Callable[[], Any], tokens: Sequence[int]) -> str:
    """Return the text of tokens; nothing where the model came without a tokenizer."""
    try:
        return str(tokenizer().decode(tokens, skip_special_tokens=True))
    except (OSError, ValueError):
        return ""  # it was asked with token ids


def _ends_of(model: Any) -> frozenset[int]:
    # Models that chat end a turn with another token than a text; only the former names it.
    said = getattr(model, "generation_config", None)
    ends = getattr(said, "eos_token_id", None)
    ends = model.config.eos_token_id if ends is None else ends
    if ends is None:
        return frozenset()
    return frozenset(ends if isinstance(ends, list) else [ends])
