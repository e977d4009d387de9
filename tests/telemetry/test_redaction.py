"""No secret leaves the process in a log line or in the reason of a probe."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.telemetry import redaction
from millstream.telemetry.redaction import (
    CUT,
    HIDDEN,
    is_clear,
    redact,
    redact_fields,
    redact_text,
)

SECRET = "hunter2"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "REDIS_PASSWORD",
        "passwd",
        "client_secret",
        "token",
        "accessToken",
        "Authorization",
        "Proxy-Authorization",
        "apikey",
        "api_key",
        "X-API-Key",
        "credentials",
        "Set-Cookie",
        "X-Amz-Signature",
        "sig",
        "pwd",
        "access_key",
        "jwt",
        "AccountKey",
        "Ocp-Apim-Subscription-Key",
        "encryption key",
        "connectionString",
    ],
)
@pytest.mark.parametrize("value", [SECRET, [SECRET], {"value": SECRET}, SECRET.encode(), 1234])
def test_values_under_secret_keys_are_hidden(key: str, value: object) -> None:
    assert redact_fields({key: value}) == {key: HIDDEN}
    assert redact({"deep": [{key: value}]}) == {"deep": [{key: HIDDEN}]}


def test_counts_of_tokens_are_no_secret() -> None:
    """Agents log the usage of models all day; a string under the same key is hidden."""
    assert redact_fields({"max_tokens": 512, "tokens_used": 7}) == {
        "max_tokens": 512,
        "tokens_used": 7,
    }
    assert redact_fields({"tokens": SECRET}) == {"tokens": HIDDEN}


def test_ordinary_fields_pass_unchanged() -> None:
    fields = {
        "worker": "a1b2",
        "key": "research/tool/1",
        "error": "ValueError: unexpected token: '<'",
        "url": "https://example.org:8080/a@b?page=2",
        "waited_s": 0.5,
        "done": True,
        "none": None,
    }
    assert redact_fields(fields) == fields


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}@redis:6379/0",
        f"rediss://user:{SECRET}@redis:6379/0",
        f"cannot reach redis://:{SECRET}@redis:6379: refused",
        f"redis+sentinel://u:{SECRET}@h:26379,h2:26379/mymaster/0",
        f"https://{SECRET}@github.com/x.git",
        f"https://{SECRET}:x-oauth-basic@github.com/x.git",
        f"redis://:pa/{SECRET}@redis:6379",
        f"redis://:p@{SECRET}@redis:6379",
        f"GET https://api.test/v1?q=x&api_key={SECRET}&page=2 failed",
        f"Config(host='h', password='{SECRET} and more', port=1)",
        f"{{'password': '{SECRET}', 'n': 1}}",
        f'{{"client_secret": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"Authorization: token {SECRET}",
        f"authorization: {SECRET}",
        f"Set-Cookie: sid={SECRET}; Path=/",
        f"X-Api-Key: {SECRET}",
        f"X-Vault-Token: {SECRET}",
        f"password: {SECRET}",
        f"GET https://b.test/x?X-Amz-Signature={SECRET} failed",
        f"GET https://b.test/x?sv=1&sig={SECRET} failed",
        f"[('Authorization', '{SECRET}'), ('Accept', '*/*')]",
        f"[(b'authorization', b'{SECRET}')]",
        f'sent {{\\"token\\": \\"{SECRET}\\"}}',
        f"password%3D{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f"v1/verify/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f"x.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f"refused eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f'{{"password": "ab\\"{SECRET}", "n": 1}}',
        f'password="ab {SECRET}',
        f'password: "ab {SECRET}"',
        f'Cookie: sid="{SECRET}"; Path=/',
        f'Authorization: Digest username="eve", response="{SECRET}"',
        f"mysql --db-password {SECRET} -h db",
        f"<clientSecret>{SECRET}</clientSecret>",
        f"DefaultEndpointsProtocol=https;AccountKey={SECRET};EndpointSuffix=test",
        f"api key: {SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        f"ms_abcdefghij234567_{SECRET * 6}",
        f"v1/keys/ms_abcdefghij234567_{SECRET * 6}",
        f"no such model for sk-ant-{SECRET * 6}",
        f"ghp_{SECRET * 6}",
    ],
)
def test_secrets_inside_text_are_hidden(text: str) -> None:
    """Errors of clients carry the address they were given, password included."""
    shown = redact_text(text)

    assert SECRET not in shown
    assert HIDDEN in shown


def test_what_stands_around_a_secret_stays() -> None:
    assert redact_text(f"cannot reach redis://:{SECRET}@redis:6379/0: refused") == (
        "cannot reach redis://***@redis:6379/0: refused"
    )
    assert redact_text(f"/v1?api_key={SECRET}&page=2") == "/v1?api_key=***&page=2"


def test_objects_are_shown_without_their_secrets() -> None:
    """An object reaches the line as its repr, which knows nothing of secrets."""

    @dataclass
    class Settings:
        password: str = SECRET
        parts: list[str] = field(default_factory=list)

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert SECRET not in redact(Settings())
    assert redact(Broken()) == "<Broken>"


def test_what_is_shown_is_bounded() -> None:
    """A workflow that logs a whole page must not fill the disk of the node."""
    endless: list[object] = []
    endless.append(endless)

    assert len(redact_text("x" * 1_000_000)) < 10_000
    assert redact_text("begin" + "x" * 1_000_000 + "end").endswith("end")
    assert len(redact(list(range(1000)))) == 101
    assert CUT in json.dumps(redact(endless), ensure_ascii=False)


def test_a_secret_at_a_cut_does_not_survive_it() -> None:
    """Half a password is most of a password."""
    for before in range(16_350, 16_400):
        shown = redact_text("x" * before + f" redis://:{SECRET * 4}@h " + "y" * 40_000)
        assert SECRET not in shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    )
)
def test_anything_becomes_strict_json(value: object) -> None:
    json.dumps(redact(value), allow_nan=False)


def test_pairs_are_hidden_like_mappings() -> None:
    """Headers come as pairs from every HTTP library."""
    for pair in (("Authorization", SECRET), ["x-api-key", SECRET]):
        assert redact({"headers": [pair]}) == {"headers": [[pair[0], HIDDEN]]}
    assert SECRET not in json.dumps(redact({"raw": [(b"authorization", SECRET.encode())]}))


def test_words_that_only_look_like_secrets_pass() -> None:
    """A design, a signal and a token of a parser are what most messages are about."""
    fields = {"design": "x", "signal": "go", "author": "me", "text": "signal: go, author: me"}
    assert redact_fields(fields) == fields
    for text in ("task-1/disk-usage", "sk-learn", "hf_hub", "a <b> c -- d --token", "keyboard: x"):
        assert redact_text(text) == text


@pytest.mark.parametrize(
    "part", ['password="\\', "--", "<token", "api ", 'cookie: ="', "-----BEGIN "]
)
def test_no_text_makes_a_search_long(part: str) -> None:
    """The steps of a search are not to be counted, so they are bounded by what stops a test."""
    assert len(redact_text(part * (40_000 // len(part)))) < 10_000


def test_a_name_of_a_megabyte_is_not_remembered() -> None:
    """Names are looked up again and again; a thousand of these would be the memory of a worker."""
    before = redaction._looked_up.cache_info().currsize
    for number in range(3):
        assert redact_fields({"token" + str(number) * 1_000_000: SECRET})
    assert redaction._looked_up.cache_info().currsize == before


_PARTS = (
    "a",
    "7",
    ".",
    "-",
    "/",
    ":",
    ",",
    "@",
    " ",
    "=",
    "eyJ",
    "token",
    "pwd",
    "://",
    '"',
    "ü",
    "sk-",
    "hf_",
    "aB3-" * 6,
)


@given(
    st.dictionaries(
        st.sampled_from(("run_id", "took_s", "worker", "api_key", "max_tokens")),
        st.lists(st.sampled_from(_PARTS), max_size=8).map("".join)
        | st.integers()
        | st.floats()
        | st.booleans()
        | st.none()
        | st.binary(max_size=3),
    )
)
@example({"run_id": "a" * 9000})
@example({"took_s": math.nan})
@example({"api_key": "hunter2"})
@example({"run_id": "pwd:hunter2", "worker": "w"})
@example({"run_id": "hf_" + "aB3-" * 6})
@example({"worker": "w", "run_id": "eyJhbGciOi.eyJzdWIiOiIx.c2ln"})
def test_what_is_seen_to_be_clear_is_what_redaction_leaves(fields: dict[str, object]) -> None:
    encoded = msgspec.json.encode(fields)
    if is_clear(fields, encoded):
        assert encoded == msgspec.json.encode(redact_fields(fields))


def test_what_most_lines_say_is_seen_to_be_clear() -> None:
    fields = {"run_id": "k3v9", "workflow": "noop", "state": "completed", "attempt": 1, "s": 1e-05}
    assert is_clear(fields, msgspec.json.encode(fields))
