"""Nobody gets in without showing who they are, and nobody gets further than they may."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import jwt
import pytest
from aiohttp import web

from millstream.errors import ConfigError
from millstream.events import StoreFailed
from millstream.public_keys import KeysUnreadable, parsed
from millstream.store import api_keys, places
from millstream.store.connection import Connection
from millstream_gateway.auth.keyring import BELIEVED_S, Keyring
from millstream_gateway.auth.keysets import Keys, UrlSource, source_of
from millstream_gateway.auth.rates import Places, Rates
from millstream_gateway.refusals import TooMany
from tests.gateway.issuer import AUDIENCE, ISSUER, Issuer
from tests.gateway.served import Served, served

ADD = {"workflow": "add", "arguments": {"a": 2}}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_each_algorithm_is_taken(
    gateway: Served, issuer: Issuer, algorithm: str
) -> None:
    """And a key that appeared after the start is found, since the token names it."""
    issuer.add("new", algorithm)
    gateway.gateway._duties[0].__self__._looked = float("-inf")  # type: ignore[attr-defined]  # ten seconds on

    status, _ = await gateway.get("/queues", token=issuer.token("viewer", kid="new"))

    assert status == 200


def _unsigned(issuer: Issuer) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{head}.{issuer.token('admin').split('.')[1]}."


def _signed_with_the_public_key(issuer: Issuer) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    issuer.add("rs", "RS256")
    pem = issuer.public("rs").public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (
            {"alg": "HS256", "kid": "rs"},
            {"sub": "x", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "roles": "admin"},
        )
    )
    import hashlib
    import hmac

    signed = hmac.new(pem, head + b"." + body, hashlib.sha256).digest()
    return b".".join((head, body, base64.urlsafe_b64encode(signed).rstrip(b"="))).decode()


def _with_its_own_key(issuer: Issuer) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from jwt.algorithms import OKPAlgorithm

    key = Ed25519PrivateKey.generate()
    claims = {"sub": "x", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "roles": "admin"}
    jwk = json.loads(OKPAlgorithm.to_jwk(key.public_key()))
    return jwt.encode(claims, key, "EdDSA", headers={"kid": "ed", "jwk": jwk})


#: What somebody could try, and what it would be if it worked.
HOSTILE: dict[str, Callable[[Issuer], str]] = {
    "nothing": lambda _: "",
    "noise": lambda _: "....",
    "no signature": _unsigned,
    "the public key as a secret": _signed_with_the_public_key,
    "a key of its own": _with_its_own_key,
    "expired": lambda issuer: issuer.token("admin", exp=time.time() - 60),
    "not yet": lambda issuer: issuer.token("admin", nbf=time.time() + 60),
    "for ever": lambda issuer: issuer.token("admin", exp=None),
    "for somebody else": lambda issuer: issuer.token("admin", aud="elsewhere"),
    "for nobody": lambda issuer: issuer.token("admin", aud=None),
    "from somebody else": lambda issuer: issuer.token("admin", iss="https://evil.test"),
    "of nobody": lambda issuer: issuer.token("admin", sub=None),
    "a tenant that is none": lambda issuer: issuer.token("admin", tenant=["a"]),
    "an unknown key": lambda issuer: issuer.token("admin", headers={"kid": "none"}),
    "cut": lambda issuer: issuer.token("admin")[:-4],
    "another body": lambda issuer: _swapped(issuer.token("viewer"), issuer.token("admin")),
    "a key that nobody has": lambda _: f"ms_{'a' * 16}_{'A' * 43}",
    "long": lambda _: "a" * 8000,
}


def _swapped(first: str, second: str) -> str:
    return ".".join((first.split(".", maxsplit=1)[0], second.split(".")[1], first.split(".")[2]))


@pytest.mark.parametrize("attempt", HOSTILE)
async def test_what_is_no_credential_opens_nothing(
    gateway: Served, issuer: Issuer, attempt: str
) -> None:
    """It is refused before anything is read or asked, as nobody."""
    shown = HOSTILE[attempt](issuer)

    for path in ("/queues", "/runs", "/openapi.json"):
        status, problem = await gateway.get(path, token=shown)
        assert (status, problem["type"]) == (401, "urn:millstream:unauthenticated"), problem
    status, _ = await gateway.ask(
        "POST", "/api/v1/runs", token=shown, data=b"{", headers={"Content-Type": "text/plain"}
    )
    assert status == 401


async def test_two_credentials_are_one_too_many(gateway: Served, issuer: Issuer) -> None:
    """A proxy may check the one and pass on the other."""
    status, _ = await gateway.get("/queues", headers={"X-API-Key": "ms_x"})
    assert status == 400
    assert (await gateway.get("/queues", token="", headers={"Authorization": "Basic eDp5"}))[
        0
    ] == 401


MAY = {
    "viewer": {"GET /runs/r1": 200, "POST /runs": 403, "POST /runs/r1/cancel": 403},
    "submitter": {"GET /runs/r1": 200, "POST /runs": 201, "POST /runs/r1/cancel": 403},
    "operator": {"GET /runs/r1": 200, "POST /runs": 201, "POST /runs/r1/cancel": 202},
    "admin": {"GET /runs/r1": 200, "POST /runs": 201, "POST /runs/r1/cancel": 202},
    "janitor": {"GET /runs/r1": 403, "POST /runs": 403, "POST /runs/r1/cancel": 403},
}


@pytest.mark.parametrize("role", MAY)
async def test_a_role_allows_what_it_says(gateway: Served, issuer: Issuer, role: str) -> None:
    """Each includes the ones before it, and a word that means nothing here grants nothing."""
    await gateway.post("/runs", {**ADD, "id": "r1"})
    token = issuer.token(role)

    for what, expected in MAY[role].items():
        method, path = what.split()
        body = {"json": ADD} if path == "/runs" else {}
        status, _ = await gateway.ask(method, f"/api/v1{path}", token=token, **body)
        assert status == expected, what


async def test_a_role_of_one_queue_opens_no_other(gateway: Served, issuer: Issuer) -> None:
    """Whichever way the queue is named: in the path, the query or the body."""
    token = issuer.token("operator:other")
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/runs", None),
        ("GET", "/runs?queue=default", None),
        ("GET", "/runs/r1?queue=default", None),
        ("GET", "/runs/r1/result", None),
        ("GET", "/runs/r1/events", None),
        ("POST", "/runs/r1/cancel", None),
        ("POST", "/runs/r1/retry?queue=default", None),
        ("POST", "/runs", ADD),
        ("POST", "/runs/batch", {"runs": [{**ADD, "queue": "other"}, ADD]}),
        ("GET", "/queues/default", None),
        ("GET", "/queues/default/dead", None),
        ("POST", "/queues/default/dead/replay", {"ids": ["r1"]}),
        ("GET", "/workflows", None),
    ]
    for method, path, body in asked:
        status, _ = await gateway.ask(method, f"/api/v1{path}", token=token, json=body or {})
        assert status == 403, path

    assert (await gateway.get("/queues", token=token))[1]["queues"][0]["queue"] == "other"
    assert (await gateway.post("/runs", {**ADD, "queue": "other"}, token=token))[0] == 201
    assert (await gateway.client.depth()).waiting == 0


#: What is said to a run, by verb; and of whom many are meant.
SAID: dict[str, Any] = {
    "signal": {"name": "go"}, "answer": {"approved": True},
    "resolve": {"step": "s#0", "verdict": "retry"}, "fork": {"step": "s#0"},
}  # fmt: skip
NAMED: dict[str, Any] = {"ids": ["r1"]}
THEIRS: dict[str, Any] = {"all": True, "tenant": "acme"}


async def test_a_run_of_another_tenant_does_not_exist(gateway: Served, issuer: Issuer) -> None:
    """Every way to ask for it answers as if there were none; its tenant comes from the token."""
    ours, theirs = (issuer.token("admin", tenant=name) for name in ("acme", "umbrella"))
    await gateway.post("/runs", {**ADD, "id": "r1"}, token=ours)

    for token in (theirs, issuer.token("admin")):
        for method, path in (
            ("GET", "/runs/r1"), ("GET", "/runs/r1/result"), ("GET", "/runs/r1/events"),
            ("POST", "/runs/r1/cancel"), ("POST", "/runs/r1/retry"), ("GET", "/runs/r1/steps"),
            *(("POST", f"/runs/r1/{verb}") for verb in SAID),
        ):  # fmt: skip
            verb = path.rpartition("/")[2]
            said = {"json": SAID[verb]} if verb in SAID else {}
            other = path.replace("r1", "r2")
            found = await gateway.ask(method, f"/api/v1{path}", token=token, **said)
            none = await gateway.ask(method, f"/api/v1{other}", token=token, **said)
            assert (found[0], found[1]["detail"].replace("r1", "r2")) == (404, none[1]["detail"])
        assert (await gateway.get("/runs", token=token))[1]["runs"] == []
        replay = await gateway.post("/queues/default/dead/replay", {"ids": ["r1"]}, token=token)
        assert replay[1]["runs"] == {"r1": "unknown"}
        for verb in ("cancel", "retry"):
            path = f"/queues/default/runs/{verb}"
            named = await gateway.post(path, NAMED, token=token)
            assert named[1]["runs"] == {"r1": "unknown"}
            assert (await gateway.post(path, THEIRS, token=token))[1]["runs"] == {}
        # Not even by saying exactly what they said.
        status, problem = await gateway.post("/runs", {**ADD, "id": "r1"}, token=token)
        assert (status, "acme" in problem["detail"]) == (409, False)
        batch = await gateway.post("/runs/batch", {"runs": [{**ADD, "id": "r1"}]}, token=token)
        assert batch[1]["runs"][0]["error"]

    status, view = await gateway.get("/runs/r1", token=ours)
    assert (status, view["tenant"], view["state"]) == (200, "acme", "queued")
    body = {**ADD, "tenant": "acme"}
    assert (await gateway.post("/runs", body, token=theirs))[0] == 400


async def test_keys_of_two_tenants_never_meet(gateway: Served, issuer: Issuer) -> None:
    """The same Idempotency-Key of another tenant is another run."""
    found = set()
    for tenant in ("acme", "acme", "umbrella", None):
        token = issuer.token("submitter", tenant=tenant)
        _, run = await gateway.post("/runs", ADD, token=token, headers={"Idempotency-Key": "k"})
        found.add(run["id"])

    assert len(found) == 3


async def test_an_api_key_opens_what_it_was_made_for(gateway: Served) -> None:
    """Either header, until it is revoked or over; and a wrong secret opens nothing."""
    key, text = await api_keys.create(
        gateway.connection, name="ci", roles=("submitter:other",), tenant="acme", lasts_s=600
    )

    status, run = await gateway.post("/runs", {**ADD, "queue": "other"}, token=text)
    assert status == 201
    assert (await gateway.client.run(run["id"], "other").status()).tenant == "acme"
    assert (await gateway.get("/queues", token="", headers={"X-API-Key": text}))[0] == 200
    assert (await gateway.post("/runs", ADD, token=text))[0] == 403
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert (await gateway.get("/queues", token=wrong))[0] == 401
    assert key.digest not in text
    rows = await gateway.connection.client.hgetall("millstream:{keys}:known")
    assert not any(text.split("_", 2)[2].encode() in row for row in rows.values())


async def test_a_revoked_key_opens_nothing_five_seconds_later(
    memory_url: str, issuer: Issuer
) -> None:
    """What was looked up is believed that long, and no longer."""
    now = [1000.0]
    parts = {"mono": lambda: now[0]}
    async with served(memory_url, issuer, parts=parts) as gateway:
        key, text = await api_keys.create(
            gateway.connection, name="ci", roles=("viewer",), tenant=None, lasts_s=None
        )
        assert (await gateway.get("/queues", token=text))[0] == 200
        assert await api_keys.revoke(gateway.connection, key.id)
        now[0] += 5.1
        assert (await gateway.get("/queues", token=text))[0] == 401
        assert not await api_keys.revoke(gateway.connection, "nobody")
        assert await api_keys.prune(gateway.connection) == 1
        assert await api_keys.every(gateway.connection) == []


async def test_a_key_is_looked_up_once_however_many_show_it(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests of a busy caller need it at once; who hangs up takes it from nobody."""
    looked_up: list[str] = []
    find = api_keys.find

    async def counted(connection: Connection, key_id: str) -> api_keys.ApiKey | None:
        looked_up.append(key_id)
        return await find(connection, key_id)

    monkeypatch.setattr(api_keys, "find", counted)
    now = [0.0]
    connection = Connection(memory_url)
    connection.open()
    try:
        key, text = await api_keys.create(
            connection, name="busy", roles=("viewer",), tenant=None, lasts_s=None
        )
        keyring = Keyring(connection, mono=lambda: now[0], wall=time.time)
        for now[0] in (0.0, BELIEVED_S):
            first = asyncio.ensure_future(keyring.principal(text))
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(keyring.principal, text)
                await anyio.lowlevel.checkpoint()
                first.cancel()
            assert (await keyring.principal(text)).name == f"key:{key.id}"
    finally:
        await connection.aclose()
    assert looked_up == [key.id, key.id]


async def test_an_expired_key_opens_nothing(memory_url: str, issuer: Issuer) -> None:
    """By the clock of the gateway."""
    late = {"wall": lambda: time.time() + 700}
    async with served(memory_url, issuer, parts=late) as gateway:
        _, text = await api_keys.create(
            gateway.connection, name="ci", roles=("viewer",), tenant=None, lasts_s=600
        )
        assert (await gateway.get("/queues", token=text))[0] == 401


async def test_keys_that_are_published_no_more_sign_nothing(tmp_path: Any) -> None:
    """Rotation: the new one is taken at once, the old one is gone with the next reading."""
    issuer = Issuer(tmp_path / "keys.json")
    failures: list[Any] = []
    now = [0.0]
    source = source_of(str(issuer.path), lambda: None)  # type: ignore[arg-type,return-value]  # a file needs none
    keys = Keys([source], refresh_s=60, emit=failures.append, mono=lambda: now[0])
    assert [key.kid for key in await keys.fitting("ed", "EdDSA")] == ["ed"]
    assert await keys.fitting("ed", "RS256") == []

    issuer.add("next", "EdDSA")
    assert await keys.fitting("next", "EdDSA") == []  # not again within ten seconds
    now[0] += 11
    assert [key.kid for key in await keys.fitting("next", "EdDSA")] == ["next"]
    issuer.drop("ed")
    await keys._load()
    now[0] += 11
    assert await keys.fitting("ed", "EdDSA") == []

    issuer.path.write_text("{}")
    await keys._load()
    assert await keys.fitting("next", "EdDSA")  # what was known goes on
    assert isinstance(failures[-1], StoreFailed)


async def test_keys_are_fetched_within_bounds() -> None:
    """No redirect is followed, and what is no set of keys changes nothing."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/moved":
            raise web.HTTPFound("/keys")
        return web.Response(text="{}" if request.path == "/empty" else "x" * 10)

    import aiohttp

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with pytest.raises(KeysUnreadable, match="302"):
            await UrlSource(f"{base}/moved", aiohttp.ClientSession).load()
        for path in ("/empty", "/noise"):
            data = await UrlSource(base + path, aiohttp.ClientSession).load()
            with pytest.raises(KeysUnreadable):
                parsed(data)
    finally:
        await runner.cleanup()
    with pytest.raises(ConfigError, match="https"):
        source_of("http://issuer.test/keys", aiohttp.ClientSession)


def test_weak_and_symmetric_keys_are_passed_over() -> None:
    """Whoever can check with a symmetric key can sign with it."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from jwt.algorithms import RSAAlgorithm

    weak = json.loads(RSAAlgorithm.to_jwk(generate_private_key(65537, 1024).public_key()))
    for row in (weak, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "n": "x"}, {"kty": "EC"}):
        with pytest.raises(KeysUnreadable, match="no key"):
            parsed(json.dumps({"keys": [row, 7]}).encode())


def test_an_allowance_fills_up_again() -> None:
    """A burst of two seconds' worth, then the steady rate; and more than that is owed."""
    now = [0.0]
    rates = Rates(10, lambda: now[0])
    for _ in range(20):
        rates.take("alice")
    with pytest.raises(TooMany) as refused:
        rates.take("alice")
    assert refused.value.headers["Retry-After"] == "1"
    rates.take("bob")
    now[0] += 0.1
    rates.take("alice")
    now[0] += 2
    rates.take("alice", 500)
    now[0] += 40
    with pytest.raises(TooMany):
        rates.take("alice")


def test_places_are_given_back() -> None:
    """Of one caller and of all."""
    places = Places(2, 3)
    with places.hold("alice"), places.hold("alice"):
        with pytest.raises(TooMany), places.hold("alice"):
            pass
        with places.hold("bob"), pytest.raises(TooMany), places.hold("carol"):
            pass
    assert places.held == 0


async def test_too_many_requests_are_told_when_to_come_back(
    memory_url: str, issuer: Issuer
) -> None:
    """By caller: another one is served."""
    parts = {"mono": lambda: 0.0}
    async with served(memory_url, issuer, parts=parts, rate=1.0, enqueue_rate=2.0) as gateway:
        codes = [(await gateway.get("/queues"))[0] for _ in range(3)]
        assert codes == [200, 200, 429]
        other = issuer.token("submitter", sub="bob")
        runs = {"runs": [ADD] * 4}
        assert (await gateway.post("/runs/batch", runs, token=other))[0] == 200
        assert (await gateway.post("/runs", ADD, token=other))[0] == 429


async def test_an_open_gateway_listens_to_this_machine_only(
    memory_url: str, issuer: Issuer
) -> None:
    """Also when a browser on this machine is sent here by a page from elsewhere."""
    with pytest.raises(ConfigError, match="only this machine"):
        async with served(memory_url, issuer, insecure_open=True, host="0.0.0.0"):
            pass
    async with served(memory_url, issuer, insecure_open=True) as gateway:
        assert (await gateway.get("/queues", token=""))[0] == 200
        for headers in ({"Host": "evil.test"}, {"Origin": "https://evil.test"}, {"Host": "[x"}):
            assert (await gateway.get("/queues", token="", headers=headers))[0] == 403


async def test_tokens_without_an_audience_are_no_configuration(
    memory_url: str, issuer: Issuer
) -> None:
    """A token for another service of the same provider would open this one."""
    with pytest.raises(ConfigError, match="audience"):
        async with served(memory_url, issuer, jwt_audience=()):
            await anyio.lowlevel.checkpoint()


async def test_what_leads_on_in_a_list_tells_nothing_of_other_tenants(
    gateway: Served, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may end at a run of another tenant; where it goes on is for its reader alone."""
    monkeypatch.setattr(places, "_STEP", 2)
    monkeypatch.setattr(places, "MOST_LOOKED_AT", 2)
    for tenant, names in (("acme", "ours"), ("umbrella", "theirs")):
        for n in range(3):
            await gateway.client.enqueue("add", {"a": 1}, id=f"{names}-{n}", tenant=tenant)
    ours, theirs = (issuer.token("admin", tenant=name) for name in ("acme", "umbrella"))

    found: list[str] = []
    cursors: list[str] = []
    query = ""
    async with served(gateway.store, issuer) as other:
        for n in range(10):
            status, page = await (gateway, other)[n % 2].get(f"/runs?limit=1{query}", token=ours)
            assert status == 200
            found += [run["id"] for run in page["runs"]]
            if page["next"] is None:
                break
            cursors.append(page["next"])
            query = f"&cursor={page['next']}"

    assert sorted(found) == ["ours-0", "ours-1", "ours-2"]
    assert len(cursors) >= 3
    plain = [base64.urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in cursors]
    assert not [data for data in plain if b"queued" in data or data.isascii()]
    for asked in (f"/runs?cursor={cursors[0]}", f"/queues/default/dead?cursor={cursors[0]}"):
        assert (await gateway.get(asked, token=theirs))[0] == 400
    assert (await gateway.get(f"/runs?queue=other&cursor={cursors[0]}", token=ours))[0] == 400
    await gateway.connection.client.flushdb()
    async with served(gateway.store, issuer) as fresh:
        for _ in range(2):  # the one has made another key, the other sees that
            assert (await fresh.get(f"/runs?cursor={cursors[0]}", token=ours))[0] == 400
