"""Cards whose signatures are demanded: what nobody has signed whom we trust is not called."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from jwt.api_jws import PyJWS
from yarl import URL

from millstream.errors import AgentRejected, AgentUntrusted, ConfigError
from millstream_worker.agents.caller import AgentCaller
from millstream_worker.agents.declared import parse_agents
from tests.gateway.between import between
from tests.gateway.issuer import Issuer
from tests.gateway.served import served
from tests.gateway.test_agent_calls import us
from tests.gateway.test_card_signing import written

P256, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    """The public part of a key, as a file has it."""
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def jwk(key: Any, algorithm: str, kid: str) -> dict[str, Any]:
    """The same, as a key set has it."""
    row = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {**row, "kid": kid, "use": "sig", "alg": algorithm}


def signed(card: dict[str, Any], key: Any, algorithm: str, **header: Any) -> dict[str, Any]:
    """A card with a signature, made as others make theirs."""
    plain = {name: value for name, value in card.items() if name != "signatures"}
    token = PyJWS().encode(rfc8785.dumps(plain), key, algorithm, headers={"typ": "JOSE", **header})
    protected, _, signature = token.split(".")
    made = {"protected": protected, "signature": signature}
    return {**card, "signatures": [*card.get("signatures", []), made]}


@dataclass(slots=True)
class Place:
    """Where a card and a key set are fetched from."""

    url: str = ""
    make: Callable[[dict[str, Any]], dict[str, Any]] = lambda card: card
    keys: list[dict[str, Any]] = field(default_factory=list)
    away: bool = False
    asked: list[str] = field(default_factory=list)
    shown: list[str | None] = field(default_factory=list)

    def card(self) -> dict[str, Any]:
        """The card, as it is now."""
        rpc = {"url": f"{self.url}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        skills = [{"id": "s", "name": "ü 😀", "description": "", "tags": []}]
        return self.make({"name": "a", "supportedInterfaces": [rpc], "skills": skills, "ö": 1.50})


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """Serve them for this block, and answer whatever is asked by JSON-RPC."""
    here = Place()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        here.asked.append(request.path)
        if request.path == "/jwks.json":
            here.shown.append(request.headers.get("Authorization"))
            return web.json_response({"keys": here.keys}, status=503 if here.away else 200)
        if request.path == "/rpc":
            return web.json_response({"jsonrpc": "2.0", "id": None, "result": {"id": "t"}})
        body = json.dumps(here.card())
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304)
        return web.Response(text=body, headers={"ETag": tag})

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        here.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield here
    finally:
        await runner.cleanup()


class Clock:
    """Time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@asynccontextmanager
async def calling(
    here: Place, directory: Path = Path(), **verify: Any
) -> AsyncIterator[tuple[AgentCaller, Clock]]:
    """Call the agent there, with a demand; and time that can be let pass."""
    entry = {"url": here.url, "allowPrivate": True, "verify": verify}
    entry["headers"] = {"Authorization": "Bearer hush"}
    specs = parse_agents({"agents": {"a": entry}}, directory)
    clock = Clock()
    async with AgentCaller(specs, emit=lambda _: None, mono=clock) as caller:
        yield caller, clock


async def refused(caller: AgentCaller, why: str) -> None:
    """Nothing is sent to the agent, and the error says why."""
    with pytest.raises(AgentUntrusted, match=why):
        await caller.task("a", "t")


def forged(card: dict[str, Any], header: dict[str, Any], sign: Callable[[bytes], bytes]) -> Any:
    """A signature that no library makes."""

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    protected = text(json.dumps(header).encode())
    content = f"{protected}.{text(rfc8785.dumps(card))}".encode()
    made = {"protected": protected, "signature": text(sign(content))}
    return {**card, "signatures": [made]}


def _hs256(content: bytes) -> bytes:
    return hmac.new(pem(P256), content, "sha256").digest()


FORGED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unsigned": (lambda card: card, "is not signed"),
    "none": (lambda card: forged(card, {"alg": "none"}, lambda _: b""), "made with 'none'"),
    "the public key as a secret": (
        lambda card: forged(card, {"alg": "HS256"}, _hs256),
        "made with 'HS256'",
    ),
    "another key": (lambda card: signed(card, OTHER, "ES256"), "by another key"),
    "a key of another kind": (lambda card: signed(card, ED, "EdDSA"), "no trusted key for EdDSA"),
    "changed": (lambda card: {**signed(card, P256, "ES256"), "name": "b"}, "not over this card"),
    "no JSON": (
        lambda card: {**card, "signatures": [{"protected": "e30x", "signature": "x"}]},
        "cannot be read",
    ),
    "no list": (lambda card: {**card, "signatures": {"protected": "e30"}}, "is not signed"),
    "a header of another type": (
        lambda card: {**card, "signatures": ["x", {"protected": "bnVsbA", "signature": ""}]},
        "cannot be read",
    ),
}


async def test_what_nobody_has_signed_whom_we_trust_is_not_called(tmp_path: Path) -> None:
    """Each kind of forgery, against the same file of keys; the right one is called."""
    (tmp_path / "trusted.pem").write_bytes(pem(P256))
    async with place() as here:
        for make, why in FORGED.values():
            async with calling(here, tmp_path, keys=["trusted.pem"]) as (caller, _):
                here.make = make
                await refused(caller, why)
                with pytest.raises(AgentRejected, match="not believed: a"):
                    await caller.resolve("s")
        assert "/rpc" not in here.asked
        # The name of a key that stands in a file is its owner's business; one good one will do.
        here.make = lambda card: signed(signed(card, OTHER, "ES256"), P256, "ES256", kid="any")
        async with calling(here, tmp_path, keys=["trusted.pem"]) as (caller, _):
            assert await caller.task("a", "t") == {"id": "t"}
            assert await caller.resolve("s") == "a"


async def test_a_card_may_send_what_is_empty(tmp_path: Path) -> None:
    """What was signed is the card without it, or the card as it stands; nothing else."""
    (tmp_path / "trusted.pem").write_bytes(pem(ED))
    async with place() as here:
        plain = {"description": "", "list": [], "deep": {"er": {"": ""}}, "false": False}

        def without(card: dict[str, Any]) -> dict[str, Any]:
            skills = [{"id": "s", "name": "ü 😀"}]
            made = signed({**card, "skills": skills, "false": False}, ED, "EdDSA")
            return {**card, **plain, "signatures": made["signatures"]}

        for make in (without, lambda card: signed({**card, **plain}, ED, "EdDSA")):
            here.make = make
            async with calling(here, tmp_path, keys=["trusted.pem"]) as (caller, _):
                assert await caller.task("a", "t") == {"id": "t"}
        here.make = lambda card: {**without(card), "false": None}
        async with calling(here, tmp_path, keys=["trusted.pem"]) as (caller, _):
            await refused(caller, "not over this card")


async def test_keys_change_while_we_call() -> None:
    """A new one is found by its name, one that is taken away is believed no more."""
    async with place() as here:
        here.keys = [jwk(P256, "ES256", "old")]
        here.make = lambda card: signed(card, P256, "ES256", kid="old", jku="https://evil.example")
        async with calling(here, keys=[f"{here.url}/jwks.json"]) as (caller, clock):
            await caller.task("a", "t")
            await caller.task("a", "t")
            assert here.asked.count("/jwks.json") == 1
            # Away: what is known is believed for an hour.
            here.away = True
            clock.pass_(100)
            await caller.task("a", "t")
            here.away = False
            here.keys.append(jwk(OTHER, "ES256", "new"))
            here.make = lambda card: signed(card, OTHER, "ES256", kid="new")
            clock.pass_(100)
            await caller.task("a", "t")
            # The card is the same, and its key is not trusted any more.
            del here.keys[1]
            clock.pass_(100)
            before = here.asked.count("/rpc")
            await refused(caller, "no trusted key for ES256 is called 'new'")
            await refused(caller, "no trusted key")
            assert here.asked.count("/rpc") == before
            here.make = lambda card: signed(card, P256, "ES256", kid="new")
            await refused(caller, "no trusted key")
            here.make = lambda card: signed(card, P256, "ES256", kid="old")
            await caller.task("a", "t")
        # Credentials are the agent's alone.
        assert set(here.shown) == {None}


async def test_keys_that_cannot_be_read_are_no_reason_to_trust() -> None:
    """Nothing is sent, and it is tried again later; neither are they fetched from anywhere."""
    async with place() as here:
        here.away = True
        here.make = lambda card: signed(card, P256, "ES256", kid="old")
        async with calling(here, keys=[f"{here.url}/jwks.json"]) as (caller, clock):
            with pytest.raises(Exception, match="keys for its card cannot be read") as told:
                await caller.task("a", "t")
            assert type(told.value).__name__ == "AgentNotReached"
            here.keys, here.away = [jwk(P256, "ES256", "old")], False
            await caller.task("a", "t")
            here.away = True
            clock.pass_(4000)
            with pytest.raises(Exception, match="cannot be read"):
                await caller.task("a", "t")
        specs = parse_agents(
            {"agents": {"a": {"url": here.url, "allowPrivate": True, "verify": {"keys": ["http://169.254.169.254/k"]}}}}
        )  # fmt: skip
        async with AgentCaller(specs, emit=lambda _: None, mono=time.monotonic) as caller:
            with pytest.raises(Exception, match="cannot be read"):
                await caller.task("a", "t")
    assert here.asked.count("/rpc") == 1


async def test_our_own_card_is_trusted_and_a_changed_one_is_not(
    memory_url: str, issuer: Issuer, tmp_path: Path
) -> None:
    """As a gateway signs it, through a workflow; what was changed on the way is never called."""
    (tmp_path / "trusted.pem").write_bytes(pem(P256))
    async with served(
        memory_url, issuer, a2a_discovery=True, card_key=written(tmp_path, P256)
    ) as gateway, between(gateway.url) as way:  # fmt: skip
        trust = {"keys": [str(tmp_path / "trusted.pem")], "algorithms": ["ES256"]}
        async with us(way.url, gateway.token, verify=trust) as we:
            assert await we.caller.find("them", "nothing") is None
        way.asked.clear()
        way.card = lambda body: body.replace(b'"JSONRPC"', b'"JSONRPC" ').replace(b"/a2a", b"/a2b")
        async with us(way.url, gateway.token, verify=trust) as we:
            with pytest.raises(AgentUntrusted, match="agent them: no signature of its card"):
                await we.caller.send("them", {})
        assert way.asked == [URL(way.url).with_path("/.well-known/agent-card.json").path]


@pytest.mark.parametrize(
    ("verify", "wrong"),
    [
        ({}, "keys must name a file"),
        ({"keys": ["http://a.example/jwks.json"]}, "over https"),
        ({"keys": ["nothing.pem"]}, "cannot read"),
        ({"keys": ["weak.pem"]}, "no key for RS256"),
        ({"keys": ["good.pem"], "algorithms": ["HS256"]}, "HS256 is not"),
        ({"keys": ["good.pem"], "algorithms": ["none"]}, "none is not"),
        ({"key": "good.pem"}, "is not an option"),
        (True, "must be an object"),
    ],
)
def test_a_wrong_demand_is_told_at_start(tmp_path: Path, verify: Any, wrong: str) -> None:
    """In one line that names the place."""
    (tmp_path / "good.pem").write_bytes(pem(P256))
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (tmp_path / "weak.pem").write_bytes(pem(weak))
    with pytest.raises(ConfigError, match=f"agents.a.verify.*{wrong}"):
        parse_agents({"agents": {"a": {"url": "https://a.example", "verify": verify}}}, tmp_path)
