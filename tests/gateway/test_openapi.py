"""The document says what the server does: generated requests find no difference."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from millstream_gateway.auth.principals import Role
from millstream_gateway.routes import Answer, Route, Table
from tests.gateway.served import Served


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
        assert "Needs the role" in each["description"]
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
