"""Inference in runs: answers are journaled, so a worker that dies never has them computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from millstream import Context, RunFailed, Workflows
from millstream.errors import InferenceFailed, InferenceOverloaded
from millstream.events import BatchRan, Event, StepEnded, StepRetried
from millstream.model.inference import CallOptions
from millstream.testing import Harness
from millstream_worker.inference.declared import BUILT_IN
from millstream_worker.inference.service import InferenceService

pytestmark = pytest.mark.anyio

app = Workflows()


@app.workflow()
async def embed(ctx: Context, texts: list[str]) -> list[int]:
    lengths = []
    for text in texts:
        vector = await ctx.infer("embedder", text)
        lengths.append(len(vector))
    return lengths


@app.workflow()
async def ask(ctx: Context, inputs: Any, options: dict[str, Any] | None = None) -> Any:
    return await ctx.infer("m", inputs, **(options or {}))


@app.workflow()
async def careful(ctx: Context, texts: list[str]) -> list[str]:
    said = []
    for text in texts:
        try:
            said.append(await ctx.infer("m", text))
        except InferenceFailed as error:
            said.append(error.cause)
    return said


@pytest.mark.parametrize("step", range(1, 5))
async def test_a_crash_after_any_answer_computes_none_again(step: int) -> None:
    """The answer that was recorded is the answer, whatever a second computation would say."""
    computed: list[str] = []

    def model(text: str) -> str:
        computed.append(text)
        return f"{text} {len(computed)}"

    flow = Workflows()

    @flow.workflow()
    async def chain(ctx: Context) -> list[str]:
        return [await ctx.infer("m", f"{n}") for n in range(4)]

    async with Harness(flow, models={"m": model}) as bench:
        bench.crash_after(step)
        assert await bench.run("chain") == ["0 1", "1 2", "2 3", "3 4"]
    assert computed == ["0", "1", "2", "3"]


async def test_every_try_of_a_call_has_the_same_key() -> None:
    """A server that was asked before the worker died can tell that it is asked again."""
    keys: list[str] = []

    class Busy:
        def attend(self, held: Callable[[], int]) -> None:
            pass

        async def infer(
            self, model: str, inputs: Sequence[Any], options: CallOptions, *, run: str
        ) -> list[Any]:
            keys.append(options.idempotency_key)
            if len(keys) == 1:
                raise InferenceOverloaded("later", cause="busy")
            return list(inputs)

    async with Harness(app, models=Busy()) as bench:
        assert await bench.run("ask", {"inputs": "a"}) == "a"
        assert await bench.run("ask", {"inputs": "a"}) == "a"
    first, again, other = keys
    assert first == again != ""
    assert other not in {"", first}


async def test_a_list_gives_a_list_and_one_gives_one() -> None:
    async with Harness(app, models={"m": lambda x: f"<{x}>"}) as bench:
        assert await bench.run("ask", {"inputs": ["a", "b"]}) == ["<a>", "<b>"]
        assert await bench.run("ask", {"inputs": "a"}) == "<a>"
        assert await bench.run("ask", {"inputs": []}) == []


async def test_a_list_of_messages_is_one_conversation() -> None:
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    async with Harness(app, models={"m": len}) as bench:
        assert await bench.run("ask", {"inputs": talk}) == 2


async def test_options_reach_the_model() -> None:
    def model(text: str, temperature: float) -> str:
        return f"{text} at {temperature}"

    async with Harness(app, models={"m": model}) as bench:
        arguments = {"inputs": "a", "options": {"temperature": 0.5, "priority": "low"}}
        assert await bench.run("ask", arguments) == "a at 0.5"


async def test_a_failed_answer_is_recorded_and_raised_again_on_a_replay() -> None:
    calls: Counter[str] = Counter()

    def model(text: str) -> str:
        calls[text] += 1
        if text == "bad":
            raise ValueError("no")
        return text

    async with Harness(app, models={"m": model}) as bench:
        bench.crash_after(2)
        assert await bench.run("careful", {"texts": ["a", "bad", "c"]}) == ["a", "ValueError", "c"]
    assert calls == {"a": 1, "bad": 1, "c": 1}


async def test_what_may_go_better_later_is_tried_again() -> None:
    calls: list[str] = []

    def model(text: str) -> str:
        calls.append(text)
        if len(calls) < 3:
            raise InferenceOverloaded("busy", cause="InferenceOverloaded", retry_after=0.01)
        return text

    async with Harness(app, models={"m": model}) as bench:
        assert await bench.run("ask", {"inputs": "a"}) == "a"
        assert len([x for x in bench.events if isinstance(x, StepRetried)]) == 2
    assert len(calls) == 3


async def test_an_unknown_model_fails_the_run_by_name() -> None:
    async with Harness(app) as bench:
        with pytest.raises(RunFailed, match="the test has no model m"):
            await bench.run("ask", {"inputs": "a"})


async def test_an_unknown_priority_is_a_mistake_of_the_caller() -> None:
    async with Harness(app, models={"m": str}) as bench:
        with pytest.raises(RunFailed, match="priority is high, normal or low"):
            await bench.run("ask", {"inputs": "a", "options": {"priority": "urgent"}})


async def test_the_embedder_that_needs_nothing_is_there_without_a_file() -> None:
    """The real service with its default model; runs that wait together leave together."""
    events: list[Event] = []
    async with InferenceService(BUILT_IN, emit=events.append) as service:
        async with Harness(app, models=service) as bench:
            texts = ["the tides of the sea", "a compiler"]
            runs = [
                await bench.client.enqueue("embed", {"texts": [f"{n} {x}" for x in texts]})
                for n in range(20)
            ]
            for run in runs:
                assert await run.result(timeout=20) == [512, 512]
            ended = [x for x in bench.events if isinstance(x, StepEnded)]
        batches = [x for x in events if isinstance(x, BatchRan)]
    assert Counter(x.kind for x in ended) == {"infer": 40}
    assert sum(x.items for x in batches) == 40
    assert len(batches) < 40


async def test_an_unknown_model_of_the_service_says_what_there_is() -> None:
    async with (
        InferenceService(BUILT_IN, emit=lambda _: None) as service,
        Harness(app, models=service) as bench,
    ):
        with pytest.raises(RunFailed, match=r"no model 'm' is declared .*embedder, hashing"):
            await bench.run("ask", {"inputs": "a"})
