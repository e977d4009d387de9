"""The document says what the server does: generated requests find no difference."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import Any

import anyio
import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from millstream.events import RequestServed
from millstream_gateway.auth.principals import Role
from millstream_gateway.routes import Answer, Route, Table
from tests.gateway.served import Served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


async def document(gateway: Served) -> dict[str, Any]:
    """The document as it is served."""
    status, found = await gateway.get("/openapi.json")
    assert status == 200
    return dict(found)


async def test_every_reference_leads_somewhere(gateway: Served) -> None:
    """A client generator follows them all."""
    found = await document(gateway)
    names = set(found["components"]["schemas"])
    text = json.dumps(found)

    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert used == names
    assert found["openapi"] == "3.1.0"
    assert (
        found["paths"]["/health"]["get"]["security"] == [] if "/health" in found["paths"] else True
    )


async def test_every_operation_names_its_role_and_its_refusals(gateway: Served) -> None:
    """Whoever reads it knows what to ask for, and what may come back."""
    found = await document(gateway)
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations) >= 13
    for each in operations:
        # A question by link is answered by its token alone, and nothing else is open.
        assert ("Needs the role" in each.get("description", "")) != (each.get("security") == [])
        assert ("security" in each) == (each["operationId"] == "answerByLink")
        assert {"401", "403", "404", "429", "503"} <= set(each["responses"])


def test_what_is_spelt_out_goes_before_what_is_filled_in() -> None:
    """`/runs/batch` is no run of that name."""

    async def handler(_: Any) -> Any:
        return None

    def route(path: str) -> Route:
        return Route(
            method="GET",
            path=path,
            name=path,
            summary="",
            handler=handler,
            needs=Role.VIEWER,
            answers={200: Answer("It.")},
        )

    table = Table([route("/runs/{id}"), route("/runs/batch"), route("/{any}/batch")])

    assert table.match("GET", "/runs/batch").route.path == "/runs/batch"
    assert table.match("HEAD", "/runs/a%2Fb").path == {"id": "a/b"}
    assert msgspec.json.encode(table.match("GET", "/x/batch").path) == b'{"any":"x"}'


# The gateway runs beside it in the same process, and draws numbers of its own.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.slow
async def test_generated_requests_are_answered_as_described(working: Served) -> None:
    """Hundreds of odd requests: no 5xx, no status, type or body that the document does not know."""
    found = await document(working)
    # As an API key it may not be taken away by a generated header of the same name.
    headers = {"Authorization": f"Bearer {working.token}"}
    asked = await anyio.to_thread.run_sync(generated, found, working.url, headers)

    assert set(asked) == {
        f"{method.upper()} {path}" for path, methods in found["paths"].items() for method in methods
    }
    assert all(count >= 5 for count in asked.values()), asked
    assert not [event for event in working.of(RequestServed) if event.status >= 500]


def generated(found: dict[str, Any], url: str, headers: dict[str, str]) -> Counter[str]:
    """Send what the document allows, and what it does not; return how much of each operation."""
    schema = schemathesis.openapi.from_dict(found)
    asked: Counter[str] = Counter()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @hypothesis.settings(
                max_examples=6,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case[Any]) -> None:
                asked[case.operation.label] += 1
                case.call_and_validate(base_url=url, headers=headers, checks=CHECKS)

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                ask()  # an operation without parameters cannot be called wrongly
    return asked
