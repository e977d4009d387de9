"""Cards that are signed: known for ours by the official verifier, and by nobody's else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from a2a.types.a2a_pb2 import AgentCard
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.json_format import ParseDict

from millstream.errors import ConfigError
from millstream_gateway.a2a.cards import as_json
from millstream_gateway.a2a.signing import signs_with
from tests.gateway.issuer import Issuer
from tests.gateway.served import served

ED, P256 = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = ["EdDSA", "ES256", "RS256"]


def written(directory: Path, key: Any) -> str:
    """Write a key into a file."""
    file = directory / "card.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem)
    return str(file)


def verify(card: AgentCard, key: Any) -> None:
    """Check a card against the public part of a key."""
    create_signature_verifier(lambda *_: key.public_key(), ALGORITHMS)(card)


async def test_a_card_that_is_fetched_is_known_for_ours(
    memory_url: str, issuer: Issuer, tmp_path: Path
) -> None:
    """From each of several gateways, under the same tag; what was changed is known, too."""
    tags: set[str] = set()
    file = written(tmp_path, P256)
    for _ in range(2):
        async with served(
            memory_url, issuer, a2a_discovery=True, card_key=file, public_url="https://a.example"
        ) as gateway:
            for _ in range(2):
                url = f"{gateway.url}/.well-known/agent-card.json"
                async with gateway.http.get(url) as answer:
                    card = ParseDict(await answer.json(), AgentCard())
                    tags.add(answer.headers["ETag"])
                verify(card, P256)

    assert len(tags) == 1
    with pytest.raises(InvalidSignaturesError):
        verify(card, ec.generate_private_key(ec.SECP256R1()))
    card.supported_interfaces[0].url = "https://evil.example"
    with pytest.raises(InvalidSignaturesError):
        verify(card, P256)


def test_a_card_keeps_its_signature_and_another_key_changes_its_tag(tmp_path: Path) -> None:
    """Elliptic curves sign anew each time; whoever asks with the tag must be told what is new."""

    def card() -> AgentCard:
        return AgentCard(name="ü", description="d", version="1")

    signs = signs_with(written(tmp_path, P256))
    assert as_json(signs(card())) == as_json(signs(card()))
    other = signs_with(written(tmp_path, ED))(card())
    verify(other, ED)
    assert len({as_json(each)[1] for each in (signs(card()), other, signs_with(None)(card()))}) == 3


def test_a_wrong_key_is_told_at_start(tmp_path: Path) -> None:
    """Without a word of what stands in the file."""
    (tmp_path / "text").write_text("hush-hush", "utf-8")
    weak = written(tmp_path, rsa.generate_private_key(public_exponent=65537, key_size=1024))
    for path, wrong in (
        (str(tmp_path / "text"), "is no private key"),
        (str(tmp_path / "nothing"), "cannot read"),
        (weak, "for none of"),
    ):
        with pytest.raises(ConfigError, match=wrong) as told:
            signs_with(path)
        assert "hush" not in str(told.value)
