"""`millstream seal` and what other commands say about keys, on a real Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream import SyncClient
from millstream.store import keyring
from tests.cli.inside import Inside
from tests.servers import RedisServer

ONE, TWO = keyring.fresh("one"), keyring.fresh("two")


@pytest.fixture
def keys(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of keys that every command is told of."""
    file = inside.directory / "keys"
    file.write_text(ONE, "utf-8")
    monkeypatch.setenv("MILLSTREAM_SEAL_KEYS", str(file))
    return file


def test_a_key_is_made_for_the_file(inside: Inside) -> None:
    made = inside("seal", "new", "2026-11")
    as_json = inside("seal", "new", "2026-11", "--json").json
    refused = inside("seal", "new", "no:name")

    (inside.directory / "keys").write_text(made.out, "utf-8")
    assert keyring.read(str(inside.directory / "keys")).first == "2026-11"
    assert as_json["line"].startswith("2026-11:")
    assert as_json["line"] != made.out.strip()
    assert (refused.code, "cannot be the name of a key" in refused.err) == (2, True)


def test_keys_are_rotated_and_it_is_seen_when_that_is_done(inside: Inside, keys: Path) -> None:
    """Two runs and a schedule; the last word is that nothing is left under the old key."""
    for n in range(2):
        assert inside("enqueue", "add", "-a", f"a={n}", "--id", f"r{n}").code == 0
    assert inside("schedules", "create", "s", "add", "--every", "3600").code == 0
    assert inside("seal", "status", "--json").json["keys"] == [
        {"key": "one", "values": 3, "state": "seals"}
    ]

    keys.write_text(f"{TWO}\n{ONE}", "utf-8")
    before = inside("seal", "status", "--json")
    done = inside("seal", "rekey", "--json")
    after = inside("seal", "status")

    assert (before.code, before.json["left"]) == (0, 3)
    assert (done.code, done.json["changed"], done.json["left"]) == (0, 3, 0)
    rows = [line.split() for line in after.out.splitlines()]
    assert rows == [["KEY", "VALUES", "STATE"], ["two", "3", "seals"], ["one", "0", "opens"]]
    trail = inside("audit", "list", "--json").json["acts"]
    assert [(x["verb"], x["target"]) for x in trail if x["verb"] == "reseal"] == [
        ("reseal", "schedules"), ("reseal", "conversations"), ("reseal", "default"),
    ]  # fmt: skip


def test_what_cannot_be_opened_ends_with_a_code_of_its_own(
    inside: Inside, keys: Path, redis_server: RedisServer
) -> None:
    """And nothing of it is written, or shown."""
    assert inside("enqueue", "add", "-a", "a=1", "--id", "r1").code == 0
    keys.write_text(TWO, "utf-8")

    again = inside("enqueue", "add", "-a", "a=1", "--id", "r1")
    rekey = inside("seal", "rekey", "--json")
    with SyncClient(redis_server.url) as client:
        listed = client.list()

    assert (again.code, "under key 'one', which is not here" in again.err) == (9, True)
    assert (rekey.code, rekey.json["left"]) == (9, 1)
    assert rekey.json["refused"] == {"SealKeyMissing": 1}
    assert [run.id for run in listed] == ["r1"]


def test_a_bad_file_of_keys_ends_every_command_with_one_line(inside: Inside, keys: Path) -> None:
    keys.write_text(ONE[:-9], "utf-8")

    for command in (("enqueue", "add"), ("seal", "status"), ("worker", "nowhere:app")):
        said = inside(*command)
        assert said.code == 2, said
        assert ONE[8:30] not in said.err
    assert "line 1 of file" in inside("enqueue", "add").err


def test_the_doctor_says_what_is_sealed_with(inside: Inside, keys: Path) -> None:
    keys.write_text(f"{TWO}\n{ONE}", "utf-8")
    on = findings(inside)
    keys.write_text(f"clear\n{ONE}", "utf-8")
    ends = findings(inside)
    keys.unlink()
    gone = findings(inside)

    assert on == ("ok", "on, under key two; keys here: two, one")
    assert ends == ("ok", "ends; keys here: one")
    assert (gone[0], "cannot be read (No such file" in gone[1]) == ("failed", True)


def findings(inside: Inside) -> tuple[str, str]:
    """Return what the doctor says of sealing, and how that is."""
    found = inside("doctor", "--json").json["findings"]
    (sealing,) = (x for x in found if x["subject"] == "sealing")
    return sealing["level"], sealing["detail"]


# -- keys of the gateway ---------------------------------------------------------------------------


def test_every_change_of_a_gateway_key_stands_in_the_trail(inside: Inside) -> None:
    """Who made it, for what and for whom; never its secret."""
    made = inside("keys", "create", "ci", "--role", "viewer", "--json", "--actor", "ada").json
    assert inside("keys", "revoke", made["id"], "--actor", "bob").code == 0
    assert inside("keys", "revoke", "no-such-key", "--actor", "bob").code == 2
    assert inside("keys", "prune", "--actor", "cy").code == 0

    said = inside("audit", "list", "--json")

    acts = [(x["actor"], x["verb"], x["target"], x["result"]) for x in said.json["acts"]]
    assert acts == [
        ("ada", "create key", made["id"], "ok"),
        ("bob", "revoke key", made["id"], "ok"),
        ("bob", "revoke key", "no-such-key", "UsageError"),
        ("cy", "prune keys", "keys", "ok"),
    ]
    assert said.json["acts"][0]["details"] == {"name": "ci", "roles": "viewer", "tenant": ""}
    assert made["key"].split("_", 2)[2] not in said.out


def test_a_key_that_cannot_be_noted_opens_nothing(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is not shown, and it is revoked."""
    rights = "~millstream:{keys}:* &* +@all"
    with RedisServer(acl=[f"user half on >secret {rights}"]) as server:
        monkeypatch.setenv("MILLSTREAM_REDIS", server.url_as("half", "secret"))
        made = inside("keys", "create", "ci", "--role", "viewer", "--patience", "0")
        listed = inside("keys", "list", "--json").json["keys"]

    assert (made.code, made.out) == (3, "")
    assert "create key" in made.err
    assert "note it by hand" in made.err
    assert [key["state"] for key in listed] == ["revoked"]
