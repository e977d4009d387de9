"""An image goes from one overlay to another by its digest, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import promote

DIGEST = "sha256:" + "ab" * 32
OVERLAY = """\
resources: [../../base]
images:
  - name: millstream
    newName: registry.example.com/millstream
    digest: sha256:{0}
  - name: millstream-gpu
    newName: registry.example.com/millstream-gpu
    digest: sha256:{0}
"""


@pytest.fixture
def overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("staging", "production"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kustomization.yaml").write_text(OVERLAY.format("0" * 64), "utf-8")
    monkeypatch.setattr(promote, "ROOT", tmp_path)
    return tmp_path


def test_a_digest_is_pinned_and_promoted(overlays: Path) -> None:
    """What runs in production is what was tested, to the byte."""
    for name in ("millstream", "millstream-gpu"):
        assert promote.main(["--image", f"{name}={DIGEST}", "staging"]) == 0
    assert promote.main(["staging", "production"]) == 0

    production = (overlays / "production" / "kustomization.yaml").read_text("utf-8")
    assert production == OVERLAY.format("0" * 64).replace(f"sha256:{'0' * 64}", DIGEST)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--image", "millstream=latest", "staging"],
        ["--image", f"unknown={DIGEST}", "staging"],
        ["staging", "production"],  # nothing was built yet
        ["nowhere", "production"],
    ],
)
def test_what_is_no_built_image_changes_nothing(overlays: Path, arguments: list[str]) -> None:
    """A placeholder that was promoted would be found out by the pods."""
    with pytest.raises(SystemExit):
        promote.main(arguments)

    for name in ("staging", "production"):
        text = (overlays / name / "kustomization.yaml").read_text("utf-8")
        assert text == OVERLAY.format("0" * 64)


def test_the_overlays_of_this_repository_can_be_promoted() -> None:
    """The script reads them by their shape."""
    assert set(promote.digests("staging")) <= set(promote.digests("production"))
    assert "millstream" in promote.digests("staging")
