"""The agent's card: who we are, how we are spoken to, and a skill for each workflow.

Everybody may be shown names and descriptions, where the configuration says so; the schemas of the
arguments are for those who may start a workflow, who get the extended card. What workers serve is
asked for at most every few seconds, however often a card is fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentProvider,
    AgentSkill,
    APIKeySecurityScheme,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.constants import PROTOCOL_VERSION_1_0, TransportProtocol
from google.protobuf.json_format import MessageToDict

from millstream import __version__
from millstream.store.connection import Connection
from millstream_gateway.a2a.callers import Caller
from millstream_gateway.a2a.signing import Signs
from millstream_gateway.a2a.skills import ANY_TYPE, INPUT_MODES, takes_files
from millstream_gateway.auth.principals import Role
from millstream_gateway.offered import Offered, offered

JSONRPC_PATH = "/a2a"
REST_PATH = "/a2a/v1"
#: How long what workers serve is believed.
_BELIEVED_S = 5.0
#: In an extended card: where the schema of a skill's arguments stands.
_ARGUMENTS = "urn:millstream:arguments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who we say we are."""

    name: str
    description: str
    #: Where we are reached from outside; None: as whoever asks has reached us.
    url: str | None
    #: Host and port of gRPC from outside; None: the host of the address, and the port we have.
    grpc: str | None
    #: Whether callers have to show who they are.
    guarded: bool


class Cards:
    """Makes cards."""

    def __init__(
        self,
        connection: Connection,
        identity: Identity,
        served: Sequence[str],
        *,
        grpc_port: Callable[[], int | None],
        signs: Signs,
        mono: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._served = served
        self._grpc_port = grpc_port
        self._signs = signs
        self._mono = mono
        self._found: list[Offered] = []
        self._asked = float("-inf")

    async def public(self, base: str) -> AgentCard:
        """Return the card that is fetched from an address of ours."""
        if self._mono() - self._asked > _BELIEVED_S:
            self._found = await offered(self._connection, self._served, lambda _: True)
            self._asked = self._mono()
        return self._card(base, self._found, schemas=False)

    async def extended(self, caller: Caller) -> AgentCard:
        """Return the card with the skills that a caller may use, and their arguments."""
        found = await offered(
            self._connection, self._served, lambda q: caller.principal.may(Role.SUBMITTER, q)
        )
        return self._card(caller.base, found, schemas=True)

    def _card(self, base: str, found: Sequence[Offered], *, schemas: bool) -> AgentCard:
        identity = self._identity
        url = (identity.url or base).rstrip("/")
        card = AgentCard(
            name=identity.name,
            description=identity.description,
            version=__version__,
            provider=AgentProvider(organization=identity.name, url=url),
            supported_interfaces=self._interfaces(url),
            capabilities=AgentCapabilities(
                streaming=True, push_notifications=True, extended_agent_card=True
            ),
            default_input_modes=INPUT_MODES,
            default_output_modes=INPUT_MODES,
            skills=[_skill(each) for each in found],
        )
        if schemas:
            arguments = {each.name: each.described.arguments for each in found}
            extension = card.capabilities.extensions.add(
                uri=_ARGUMENTS, description="JSON Schema of each skill's arguments, by its id."
            )
            extension.params.update(arguments)
        if identity.guarded:
            _guard(card)
        return self._signs(card)

    def _interfaces(self, url: str) -> list[AgentInterface]:
        bindings = [
            (TransportProtocol.JSONRPC, url + JSONRPC_PATH),
            (TransportProtocol.HTTP_JSON, url + REST_PATH),
        ]
        port = self._grpc_port()
        if port is not None:
            host = urlsplit(url).hostname or "localhost"
            bracketed = f"[{host}]" if ":" in host else host
            bindings.append((TransportProtocol.GRPC, self._identity.grpc or f"{bracketed}:{port}"))
        return [
            AgentInterface(
                url=where, protocol_binding=binding.value, protocol_version=PROTOCOL_VERSION_1_0
            )
            for binding, where in bindings
        ]


def as_json(card: AgentCard) -> tuple[bytes, str]:
    """Return a card as it is sent, and its tag: the same as long as nothing in it changes."""
    told: dict[str, Any] = MessageToDict(card)
    body = _dumped(told)
    # Each gateway signs for itself; by which key is part of what a card says.
    tagged = {**told, "signatures": [each["protected"] for each in told.get("signatures", ())]}
    return body, f'"{hashlib.sha256(_dumped(tagged)).hexdigest()[:32]}"'


def _dumped(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _skill(found: Offered) -> AgentSkill:
    described = found.described
    return AgentSkill(
        id=found.name,
        name=described.name,
        description=described.description or f"Run the workflow {described.name}.",
        tags=["workflow", f"queue:{found.queue}"],
        input_modes=(*INPUT_MODES, ANY_TYPE) if takes_files(found) else INPUT_MODES,
        output_modes=INPUT_MODES,
    )


def _guard(card: AgentCard) -> None:
    """Say how a caller shows who it is: one of two ways."""
    schemes = {
        "bearer": SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer")),
        "apiKey": SecurityScheme(
            api_key_security_scheme=APIKeySecurityScheme(location="header", name="X-API-Key")
        ),
    }
    for name, scheme in schemes.items():
        card.security_schemes[name].CopyFrom(scheme)
        card.security_requirements.append(SecurityRequirement(schemes={name: StringList()}))
