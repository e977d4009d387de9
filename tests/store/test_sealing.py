"""Keys and seals by themselves: what opens, what does not, and what is never shown."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.errors import ConfigError, SealBroken, SealKeyMissing
from millstream.store import keyring, sealing
from millstream.store.keyring import Keyring
from millstream.store.sealing import MARK, Place, Sealer, opened

PLACE = Place("default", "r1", "record", "step#0")
ONE, TWO = keyring.fresh("one"), keyring.fresh("two")


def ring_of(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "keys"
    file.write_text("\n".join(lines), "utf-8")
    return file


def sealer_of(tmp_path: Path, *lines: str) -> Sealer:
    return Sealer(Keyring(str(ring_of(tmp_path, *lines))))


def test_what_is_sealed_is_json_and_says_under_which_key(tmp_path: Path) -> None:
    """It stands inside of records and starts, and no encoder of ours writes its first bytes."""
    sealer = sealer_of(tmp_path, ONE)

    sealed = sealer.seal(PLACE, b'{"a":1}')

    assert json.loads(sealed).startswith("seal1:one:")
    assert sealing.key_of(sealed) == "one"
    assert sealing.keys_of(b"[%b,%b]" % (sealed, sealed)) == {"one"}
    assert opened(sealer, PLACE, sealed) == b'{"a":1}'
    assert opened(sealer, PLACE, b'{"a":1}') == b'{"a":1}'


def test_no_plain_value_passes_for_a_sealed_one() -> None:
    """Not even that of somebody who knows how a sealed one begins."""
    import msgspec

    said = json.loads(MARK + b'"')
    for value in (said, MARK.decode(), [said], {said: said}, f'"{MARK.decode()}'):
        assert MARK not in msgspec.json.encode(value)


def test_equal_values_are_sealed_differently(tmp_path: Path) -> None:
    """Who reads Redis does not learn which runs were asked for the same."""
    sealer = sealer_of(tmp_path, ONE)

    assert len({sealer.seal(PLACE, b"same") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "other",
    [
        PLACE._replace(queue="other"),
        PLACE._replace(run_id="r2"),
        PLACE._replace(kind="message"),
        PLACE._replace(name="step#1"),
        PLACE._replace(queue="default\nr1", run_id="record"),
    ],
)
def test_a_value_opens_only_where_it_belongs(tmp_path: Path, other: Place) -> None:
    sealer = sealer_of(tmp_path, ONE)
    sealed = sealer.seal(PLACE, b"secret")

    with pytest.raises(SealBroken) as found:
        sealer.open(other, sealed)
    assert found.value.key_id == "one"


def test_a_changed_byte_is_noticed_wherever_it_stands(tmp_path: Path) -> None:
    sealer = sealer_of(tmp_path, ONE)
    # Thirty-six bytes with nonce and tag: in base64 every bit of theirs means something.
    sealed = sealer.seal(PLACE, b"secrets!")
    body = len(MARK) + len("one:")

    for at in range(body, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        with pytest.raises(SealBroken):
            sealer.open(PLACE, bytes(changed))
    for cut in (sealed[:body] + b'"', sealed[:-9] + b'"'):
        with pytest.raises(SealBroken):
            sealer.open(PLACE, cut)


def test_a_key_that_is_not_here_is_named(tmp_path: Path) -> None:
    sealed = sealer_of(tmp_path, ONE).seal(PLACE, b"secret")

    for sealer in (None, sealer_of(tmp_path, TWO)):
        with pytest.raises(SealKeyMissing, match="'one', which is not here") as found:
            opened(sealer, PLACE, sealed)
        assert found.value.key_id == "one"


def test_another_key_of_the_same_name_opens_nothing(tmp_path: Path) -> None:
    sealed = sealer_of(tmp_path, ONE).seal(PLACE, b"secret")

    with pytest.raises(SealBroken):
        sealer_of(tmp_path, keyring.fresh("one")).open(PLACE, sealed)


def test_a_new_key_is_found_when_a_value_asks_for_it(tmp_path: Path) -> None:
    """Keys are rotated without a restart."""
    file = ring_of(tmp_path, ONE)
    old = Sealer(Keyring(str(file)))
    file.write_text(f"{TWO}\n{ONE}\n", "utf-8")
    sealed = Sealer(Keyring(str(file))).seal(PLACE, b"secret")

    assert sealing.key_of(sealed) == "two"
    assert old.open(PLACE, sealed) == b"secret"
    assert sealing.key_of(old.seal(PLACE, b"x")) == "two"


def test_whoever_only_seals_learns_of_a_new_first_key(tmp_path: Path) -> None:
    now = 0.0
    file = ring_of(tmp_path, ONE)
    ring = Keyring(str(file), lambda: now)
    file.write_text(f"{TWO}\n{ONE}\n", "utf-8")
    assert ring.first()[0] == "one"

    now = 6.0
    assert ring.first()[0] == "two"


def test_a_file_that_is_being_written_changes_nothing(tmp_path: Path) -> None:
    now = 0.0
    file = ring_of(tmp_path, ONE)
    ring = Keyring(str(file), lambda: now)
    for text in ("one:half", keyring.fresh("one"), ""):
        file.write_text(text, "utf-8")
        now += 6
        assert ring.first() == ("one", base64.b64decode(ONE.partition(":")[2]))
    file.unlink()
    assert ring.find("two") is None


def test_a_ring_may_end_sealing(tmp_path: Path) -> None:
    """What is new stands in clear, and what was sealed is read."""
    sealed = sealer_of(tmp_path, ONE).seal(PLACE, b"secret")
    sealer = sealer_of(tmp_path, "# switched off in May", "clear", ONE)

    assert not sealer.active
    assert sealer.seal(PLACE, b"plain") == b"plain"
    assert sealer.open(PLACE, sealed) == b"secret"


#: Keys are drawn, so what is tested has a name.
NO_RINGS = {
    "nothing": "",
    "no key": "clear",
    "a word": "one",
    "too short": "one:short=",
    "two in a line": f"{ONE} {TWO}",
    "twice": f"{ONE}\n{ONE}",
    "a name with a blank": "a b:" + "A" * 43 + "=",
    "clear behind a key": f"{ONE}\nclear",
    "too many": "\n".join(keyring.fresh(f"k{n}") for n in range(17)),
}


@pytest.mark.parametrize("what", NO_RINGS)
def test_a_file_that_is_no_ring_is_refused_and_not_shown(tmp_path: Path, what: str) -> None:
    file = ring_of(tmp_path, NO_RINGS[what])

    with pytest.raises(ConfigError, match="--seal-keys") as found:
        Keyring(str(file))
    for secret in (ONE, TWO):
        assert secret.partition(":")[2] not in str(found.value)


def test_keys_given_for_their_name_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mistakes the one for the other must not read the key in a log."""
    for reference in (ONE, f"env:{ONE}"):
        with pytest.raises(ConfigError) as found:
            Keyring(reference)
        assert found.value.__cause__ is None
    monkeypatch.setenv("SEALS", f"{TWO}\n{ONE}")
    assert Keyring("env:SEALS").first()[0] == "two"


def test_a_client_without_keys_does_not_load_the_cipher() -> None:
    """The thin client stays thin; redis-py looks whether the package is there."""
    code = (
        "import sys, millstream; c = millstream.Client('redis://localhost:1');"
        " print('cryptography.hazmat.primitives.ciphers.aead' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert said.stdout.strip() == "False"
