"""Whatever the API has, it has for nobody who may not: asked of each route that is in the document.

The routes are read from the document, so one that comes later is asked the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from millstream_gateway.auth.principals import Role
from tests.gateway.issuer import Issuer
from tests.gateway.served import Served, served

#: For whom a question by link is: it needs its token, and nothing else.
OPEN = "answerByLink"
PARTS = {"{id}": "r1", "{queue}": "default", "{name}": "nightly"}


class Asked(NamedTuple):
    """An operation of the document, and how it is asked."""

    name: str
    method: str
    path: str
    role: Role
    body: dict[str, Any] | None
    #: Whether its body or query may name a queue.
    names_queue: bool


@pytest.fixture(scope="module")
async def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    """Signs tokens for all of these tests."""
    return Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")


@pytest.fixture(scope="module")
async def gateway(issuer: Issuer) -> AsyncIterator[Served]:
    """One gateway for all of these tests: none of them may change anything."""
    # On a machine of any speed none of them comes to the limit of a caller.
    settings: dict[str, Any] = {"parts": {"body_s": 0.1}, "max_body": 65_536, "rate": 1e6}
    async with served("memory://every-route", issuer, **settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def operations(gateway: Served) -> list[Asked]:
    """Everything that the document has."""
    _, found = await gateway.get("/openapi.json")
    return [
        _asked(found, path, method, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]


def _asked(found: Any, path: str, method: str, operation: Any) -> Asked:
    for part, value in PARTS.items():
        path = path.replace(part, value)
    body = None
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        body = _least(found, schema)
    parameters = {each["name"] for each in operation["parameters"] if each["in"] == "query"}
    words = operation.get("description", "").split("`")
    return Asked(
        operation["operationId"],
        method.upper(),
        path,
        Role[words[1].upper()] if len(words) > 1 else Role.VIEWER,
        body,
        "queue" in parameters or "/default" in path,
    )


def _least(found: Any, schema: Any) -> Any:
    """The smallest value that a schema takes."""
    if "$ref" in schema:
        return _least(found, found["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            wanted = schema.get("required", [])
            return {name: _least(found, schema["properties"][name]) for name in wanted}
        case "array":
            return [_least(found, schema["items"])]
        case "boolean":
            return True
        case _:
            return "0" * 40 if schema.get("pattern") == "^[0-9a-f]{40}$" else "x"


async def ask(gateway: Served, each: Asked, token: str, **options: Any) -> tuple[int, Any]:
    """Ask for an operation as it is described."""
    given = options or ({"json": each.body} if each.body is not None else {})
    return await gateway.ask(each.method, each.path, token=token, **given)


async def test_there_is_more_than_a_handful(operations: list[Asked]) -> None:
    """These tests hold nothing when they ask nothing."""
    assert len(operations) >= 30
    assert sum(each.role is Role.OPERATOR for each in operations) >= 14
    assert [each.name for each in operations if each.name == OPEN] == [OPEN]


async def test_nobody_gets_in_without_a_name(gateway: Served, operations: list[Asked]) -> None:
    """Before anything is read, and before it is told what is there."""
    for each in operations:
        status, problem = await ask(gateway, each, "")
        assert status == (404 if each.name == OPEN else 401), each
        if each.name != OPEN:
            noise = {"data": b"{", "headers": {"Content-Type": "application/json"}}
            assert (await ask(gateway, each, "", **noise))[0] == 401, each
            assert problem["type"] == "urn:millstream:unauthenticated"


async def test_the_role_below_is_not_enough(
    gateway: Served, operations: list[Asked], issuer: Issuer
) -> None:
    """Each operation names its role, and takes none less."""
    for each in operations:
        if each.name != OPEN:
            below = "janitor" if each.role is Role.VIEWER else Role(each.role - 1).name.lower()
            assert (await ask(gateway, each, issuer.token(below)))[0] == 403, each


async def test_a_role_of_another_queue_opens_nothing(
    gateway: Served, operations: list[Asked], issuer: Issuer
) -> None:
    """Wherever a queue is named, it is the one that is looked at."""
    token = issuer.token("admin:other")
    asked = [each for each in operations if each.names_queue and each.name != OPEN]
    assert len(asked) >= 15
    for each in asked:
        assert (await ask(gateway, each, token))[0] == 403, each


async def test_a_body_of_another_kind_or_size_is_refused(
    gateway: Served, operations: list[Asked]
) -> None:
    """By a document that says why, with nothing done."""
    typed = {"Content-Type": "application/json"}
    compressed = {**typed, "Content-Encoding": "gzip"}
    bodies: list[tuple[bytes, dict[str, str], int]] = [
        (b"", typed, 400), (b"{", typed, 400), (b"[]", typed, 400), (b"null", typed, 400),
        (b'{"nobody-has-this": 1}', typed, 400), (b"[" * 20_000, typed, 400),
        (b'{"a": "\xff"}', typed, 400), (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", compressed, 415), (b" " * 70_000, typed, 413),
    ]  # fmt: skip
    for each in operations:
        for data, headers, expected in bodies if each.body is not None else []:
            status, problem = await ask(gateway, each, gateway.token, data=data, headers=headers)
            assert (status, problem["status"]) == (expected, expected), (each, data[:20], headers)
    assert (await gateway.client.depth()).waiting == 0
    assert await gateway.client.schedules.list() == []


async def test_what_takes_no_body_and_no_question_refuses_both(
    gateway: Served, operations: list[Asked]
) -> None:
    """A parameter that is not there is a mistake, and is not passed over."""
    for each in operations:
        asked = each._replace(path=f"{each.path}?nobody-has-this=1")
        assert (await ask(gateway, asked, gateway.token))[0] == 400, each
        if each.body is None and each.method == "POST":
            more = json.dumps({"a": 1}).encode()
            headers = {"Content-Type": "application/json"}
            status, _ = await ask(gateway, each, gateway.token, data=more, headers=headers)
            assert status == 400, each


async def test_no_id_or_name_leads_into_the_store(gateway: Served, operations: list[Asked]) -> None:
    """Keys of Redis are made of names: what could leave its place in one is no name."""
    for each in operations:
        for name in ("a%7b0%7d", "..", "%00", "%0d%0aX:%20y", "a" * 300, "%ff"):
            path = each.path
            for part in PARTS.values():
                path = path.replace(f"/{part}", f"/{name}")
            if path != each.path:
                status, _ = await ask(gateway, each._replace(path=path), gateway.token)
                assert status in {400, 403, 404, 405}, (each, name)
    keys = await gateway.connection.client.keys("*")
    assert not [key for key in keys if b"}" in key.partition(b"}")[2]]
