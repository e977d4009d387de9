"""A Redis behind TLS, with a user of its own: the whole way, and what people get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import trustme

from scripts.k8s_secrets import RIGHTS
from tests.cli.program import APP, Program
from tests.servers import RedisServer, Tls

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Guarded:
    """A Redis that speaks TLS only, and an authority that did not vouch for it."""

    server: RedisServer
    stranger: Path

    def url(self, password: str = "secret", *, authority: Path | None = None) -> str:
        """The address, as the user that may do what we do."""
        url = self.server.url_as("worker", password)
        return url if authority is None else f"{url.partition('?')[0]}?ssl_ca_certs={authority}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if not RedisServer.available("redis-server"):
        pytest.skip("redis-server is not on PATH")
    directory = tmp_path_factory.mktemp("tls")
    authority, certificate, key, stranger = (
        directory / f"{name}.pem" for name in ("authority", "certificate", "key", "stranger")
    )
    ours = trustme.CA()
    ours.cert_pem.write_to_path(str(authority))
    shown = ours.issue_cert("127.0.0.1")
    shown.cert_chain_pems[0].write_to_path(str(certificate))
    shown.private_key_pem.write_to_path(str(key))
    trustme.CA().cert_pem.write_to_path(str(stranger))

    users = ("user default on nopass ~* &* +@all", f"user worker on >secret {RIGHTS}")
    with RedisServer(acl=users, tls=Tls(certificate, key, authority)) as server:
        yield Guarded(server, stranger)


def test_the_main_way_goes_through_tls_as_a_user_with_few_rights(
    guarded: Guarded, tmp_path: Path
) -> None:
    """Enqueue, worker, steps, a sleep, events and the result; and everything that only looks."""
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    program = Program(tmp_path, {"MILLSTREAM_REDIS": guarded.url()})
    worker = program.start("worker", "flows:app", "--http", "-1", "--metrics", "-1")
    try:
        worker.until("worker_started")
        said = program("enqueue", "add", "-a", "a=1", "--wait", "--wait-timeout", "30")
        shown = program("runs", "list", "--json")
        resized = program("queues", "lanes", "default", "--count", "2")
        examined = program("doctor", "--json")
    finally:
        stopped = worker.stop()

    assert (said.code, said.out) == (0, "2\n"), said.err
    assert [run["state"] for run in shown.json["runs"]] == ["completed"]
    assert resized.code == 0, resized.err
    assert examined.json["ok"], examined.out
    assert stopped.code == 0
    assert "secret" not in said.err + stopped.err + stopped.out


@pytest.mark.parametrize("arguments", [("enqueue", "add"), ("worker", "flows:app")])
@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("authority", "its certificate is not trusted"),
        ("password", "check the user, its password and its ACL"),
    ],
)
def test_a_wrong_authority_or_password_is_one_line(
    mistake: str, says: str, arguments: tuple[str, ...], guarded: Guarded, tmp_path: Path
) -> None:
    """Neither passes by itself: nobody should wait for it."""
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    url = (
        guarded.url(authority=guarded.stranger) if mistake == "authority" else guarded.url("not-it")
    )

    said = Program(tmp_path, {"MILLSTREAM_REDIS": url})(*arguments)

    assert said.code == 3, said
    assert says in said.lines[-1]
    assert [line for line in said.lines if " on port " not in line] == said.lines[-1:]
    assert "not-it" not in said.err


def test_a_server_that_speaks_no_tls_or_nothing_else_is_named(
    guarded: Guarded, redis_server: RedisServer, tmp_path: Path
) -> None:
    """`redis` and `rediss` differ by a letter."""
    program = Program(tmp_path)
    plain = f"redis://127.0.0.1:{guarded.server.port}/0"
    secure = redis_server.url.replace("redis://", "rediss://")

    for url in (plain, secure):
        said = program("queues", "--redis", url, "--patience", "0")
        assert said.code == 3
        assert len(said.lines) == 1
        assert "TLS" in said.err or "rediss://" in said.err, said.err


@pytest.mark.parametrize("page", ["operations", "security"])
def test_the_rights_that_are_tested_are_those_that_are_asked_for(page: str) -> None:
    """The manifests leave out what could empty or stop a server, too; nothing else differs."""
    asked = RIGHTS.replace(" -@dangerous", "")

    assert asked != RIGHTS
    assert asked in (ROOT / "docs" / f"{page}.md").read_text("utf-8")


def test_a_user_of_few_rights_can_neither_look_elsewhere_nor_empty_a_server(
    guarded: Guarded,
) -> None:
    """What a worker that was broken into could do to the others who use this Redis."""
    with guarded.server.client(single_connection_client=True) as client:
        client.execute_command("AUTH", "worker", "secret")
        assert client.set("millstream:mine", "1")
        for command in (("GET", "other"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"),
                        ("ACL", "LIST"), ("SHUTDOWN",), ("REPLICAOF", "NO", "ONE")):  # fmt: skip
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
