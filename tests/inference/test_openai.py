"""A model behind a server: its answers, its moods, and how many calls it is asked to bear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiohttp import web

from millstream.errors import (
    InferenceError,
    InferenceFailed,
    InferenceOverloaded,
    InferenceRejected,
    InferenceUnavailable,
)
from millstream.model.inference import CallOptions
from millstream_worker.inference.backends.openai import wait_s
from millstream_worker.inference.declared import parse_models
from millstream_worker.inference.limiter import Limit
from millstream_worker.inference.service import InferenceService
from tests.inference.openai_server import FakeServer, deltas, refusing, running, stream
from tests.inference.simulated import all_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[InferenceService, FakeServer]]:
    async with running() as fake:
        model = {"backend": "openai", "url": fake.url, **options}
        declared = parse_models({"models": {"m": model}})
        async with InferenceService(declared, emit=lambda _: None) as service:
            yield service, fake


async def ask(service: InferenceService, *inputs: Any, **options: Any) -> list[Any]:
    return await service.infer("m", inputs, CallOptions(backend=options), run="r")


async def test_a_text_is_asked_as_the_words_of_a_user() -> None:
    async with serving(served_as="qwen", defaults={"max_tokens": 5}) as (service, fake):
        assert await ask(service, "hi", temperature=0.5) == [
            {"text": "you said hi", "finish_reason": "stop", "usage": {"total_tokens": 7}}
        ]
    assert fake.requests == [
        {
            "model": "qwen",
            "max_tokens": 5,
            "temperature": 0.5,
            "messages": [{"role": "user", "content": "hi"}],
        }
    ]


async def test_a_conversation_is_sent_as_it_is() -> None:
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    async with serving() as (service, fake):
        await ask(service, talk)
    assert fake.requests[0]["messages"] == talk


async def test_a_completion_is_asked_with_a_prompt() -> None:
    async with serving(task="completion") as (service, _):
        assert await ask(service, "once") == [{"text": "once...", "finish_reason": "length"}]


async def test_embeddings_of_many_calls_leave_in_lists_and_come_back_in_order() -> None:
    """The server answers out of order, as the protocol lets it."""
    async with serving(task="embedding", concurrency=1, batch_size=16) as (service, fake):
        texts = ["x" * n for n in range(1, 33)]
        answers = await all_of(*(ask(service, text) for text in texts))
        assert [x[0][0] for x in answers] == [float(n) for n in range(1, 33)]
        assert len(fake.requests) <= 4


async def test_one_bad_input_of_a_list_fails_alone() -> None:
    async with serving(task="embedding") as (service, _):
        answers = await all_of(*(ask(service, text) for text in ("a", "bad", "ccc")))
        assert isinstance(answers[1], InferenceRejected)
        assert [answers[0][0][0], answers[2][0][0]] == [1.0, 3.0]


async def test_a_stream_is_read_to_its_end() -> None:
    async with serving(stream=True) as (service, fake):
        (answer,) = await ask(service, "hi")
        assert answer == {
            "text": "you said hi ", "finish_reason": "stop", "usage": {"total_tokens": 9},
        }  # fmt: skip
        assert fake.requests[0]["stream"] is True


async def test_whoever_wants_to_reads_along() -> None:
    """A call may ask for a stream although the model was not declared to send one."""
    async with serving() as (service, fake):
        read: list[tuple[int, str]] = []
        options = CallOptions(on_text=lambda number, piece: read.append((number, piece)))
        answers = await service.infer("m", ["hi", "yes or no"], options, run="r")

        for number, answer in enumerate(answers):
            assert "".join(piece for n, piece in read if n == number) == answer["text"]
        assert len(read) == 3 + 5
        assert all(request["stream"] for request in fake.requests)
        await ask(service, "hi")
        assert "stream" not in fake.requests[-1]


@pytest.mark.parametrize("numbered", [True, False])
async def test_tool_calls_of_a_stream_are_put_together(numbered: bool) -> None:
    """Their arguments come in pieces, or whole from a server that does not number them."""
    calls = [("c1", "buy", '{"item": "tea"}'), ("c2", "pay", "{}")]
    parts: list[dict[str, Any]] = []
    for place, (name, function, arguments) in enumerate(calls):
        head = {"id": name, "type": "function"}
        if numbered:
            parts += [
                {"index": place, **head, "function": {"name": function, "arguments": ""}},
                *({"index": place, "function": {"arguments": x}} for x in arguments),
            ]
        else:
            parts.append({**head, "function": {"name": function, "arguments": arguments}})

    async with serving(stream=True) as (service, fake):
        fake.moods.append(deltas(*({"tool_calls": [part]} for part in parts)))
        (answer,) = await ask(service, "shop")

    assert [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in answer["tool_calls"]
    ] == calls
    assert answer["text"] == ""


async def test_a_repetition_is_known_by_its_key() -> None:
    """A server that knows the header computes, and charges, it once."""
    async with serving() as (service, fake):
        options = CallOptions(idempotency_key="abc")
        await service.infer("m", ["hi", "ho"], options, run="r")
        assert sorted(fake.idempotency_keys) == ["abc-0", "abc-1"]


async def test_half_a_stream_is_no_answer() -> None:
    """A server that dies in the middle must not leave half a sentence in a journal."""

    async def half(request: web.Request, body: Any) -> web.StreamResponse:
        return await stream(request, "half of", whole=False)

    async with serving(stream=True) as (service, fake):
        fake.moods.append(half)
        with pytest.raises(InferenceUnavailable, match="ended before the answer did"):
            await ask(service, "hi")


async def test_a_busy_server_is_said_to_be_busy_with_the_wait_it_asks_for() -> None:
    async with serving() as (service, fake):
        fake.moods.append(refusing(429, Retry_After="0.05"))
        with pytest.raises(InferenceOverloaded, match="HTTP 429") as caught:
            await ask(service, "hi")
        assert caught.value.retry_after == 0.05
        # Nothing is sent before that time is over.
        model: Any = service._model("m")
        assert model._limit.closed_until > anyio.current_time() - 1
        assert not model._limit.admits(model._limit.closed_until - 0.001)
        await ask(service, "again")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InferenceRejected),
        (401, InferenceRejected),
        (404, InferenceRejected),
        (500, InferenceUnavailable),
        (503, InferenceOverloaded),
        (504, InferenceUnavailable),
    ],
)
async def test_each_refusal_says_whether_trying_again_can_help(
    status: int, kind: type[InferenceError]
) -> None:
    async with serving() as (service, fake):
        fake.moods.append(refusing(status))
        with pytest.raises(kind) as caught:
            await ask(service, "hi")
        assert type(caught.value) is kind


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with running() as fake:
        pass  # it has ended when the call is made
    declared = parse_models({"models": {"m": {"backend": "openai", "url": fake.url}}})
    async with InferenceService(declared, emit=lambda _: None) as service:
        with pytest.raises(InferenceUnavailable):
            await ask(service, "hi")


async def test_an_answer_that_cannot_be_read_is_a_failure() -> None:
    async def odd(request: web.Request, body: Any) -> web.Response:
        return web.json_response({"choices": []})

    async with serving() as (service, fake):
        fake.moods.append(odd)
        with pytest.raises(InferenceFailed, match="cannot be read"):
            await ask(service, "hi")


async def test_a_secret_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def telling(request: web.Request, body: Any) -> web.Response:
        return web.Response(status=401, text=f"bad key {request.headers['Authorization']}")

    monkeypatch.setenv("LLM_KEY", "sk-very-secret")
    async with serving(api_key="${env:LLM_KEY}") as (service, fake):
        await ask(service, "hi")
        assert fake.keys == ["Bearer sk-very-secret"]
        fake.moods.append(telling)
        with pytest.raises(InferenceRejected) as caught:
            await ask(service, "hi")
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(service.declared)


async def test_a_call_that_is_given_up_is_broken_off_at_the_server() -> None:
    """Or it would compute on, for nobody."""
    async with serving() as (service, fake):
        fake.hold = anyio.Event()
        with anyio.move_on_after(0.05):
            await ask(service, "hi")
        with anyio.fail_after(5):
            while not fake.broken_off:
                await anyio.sleep(0.005)


async def test_a_small_server_is_not_drowned() -> None:
    """Refusals bring the limit down to what it bears, and all calls are answered in the end."""
    async with serving(concurrency=64) as (service, fake):
        fake.capacity = 6

        async def insist(n: int) -> list[Any]:
            while True:
                try:
                    return await ask(service, f"{n}")
                except InferenceOverloaded:
                    await anyio.sleep(0.002)

        answers = await all_of(*(insist(n) for n in range(300)))
        assert [x[0]["text"] for x in answers] == [f"you said {n}" for n in range(300)]
        refused = len(fake.requests) - 300
        assert refused < 250
        limit = service._model("m").report()["limit"]
        assert limit <= 16


def test_the_limit_grows_while_it_is_used_and_falls_once_a_refusal() -> None:
    limit = Limit(first=4, most=8)
    now = 0.0
    for _ in range(40):
        for _ in range(limit.limit):
            limit.began()
        for _ in range(limit.running):
            limit.answered(now + 0.1, now)
        now += 0.1
    assert limit.limit == 8
    for _ in range(8):
        limit.began()
    # All eight were under way when the server became too busy: that is one piece of news.
    for _ in range(8):
        limit.refused(now + 0.1, now, None)
    assert limit.limit == 4
    assert limit.running == 0


def test_the_limit_shrinks_where_answers_take_much_longer() -> None:
    limit = Limit(first=32)
    for n in range(20):
        limit.began()
        limit.answered(n + 0.1, float(n))
    before = limit.limit
    for n in range(20, 24):
        limit.began()
        limit.answered(n + 0.9, float(n))
    assert limit.limit < before


def test_a_wait_may_be_a_number_or_a_date() -> None:
    assert wait_s({"Retry-After": "3"}) == 3.0
    assert wait_s({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert wait_s({"Retry-After": "soon"}) is None
    assert wait_s({}) is None
    assert wait_s({"Retry-After": "1e9"}) == 300.0
