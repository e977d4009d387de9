"""Promotes what runs in one overlay to another: the digests of its images, and nothing else.

    python3 scripts/promote.py staging production        # then commit what it changed
    python3 scripts/promote.py --image millstream=sha256:... staging

A digest is what was tested; a tag may be something else tomorrow. Only the standard library.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "k8s" / "overlays"
#: An entry of `images` that is named by a digest.
_ENTRY = re.compile(r"(- name: (?P<name>\S+)\n(?:    .*\n)*?    digest: )(?P<digest>\S+)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ZERO = "sha256:" + "0" * 64


def digests(overlay: str) -> dict[str, str]:
    """Return the digest of each image of an overlay."""
    return {found["name"]: found["digest"] for found in _ENTRY.finditer(_read(overlay))}


def pinned(text: str, wanted: dict[str, str]) -> str:
    """Return the text of a kustomization with these digests."""
    return _ENTRY.sub(lambda found: found[1] + wanted.get(found["name"], found["digest"]), text)


def write(overlay: str, wanted: dict[str, str]) -> None:
    """Give an overlay these digests. What is no digest, or unknown there, ends the program."""
    for name, digest in wanted.items():
        if not _DIGEST.fullmatch(digest) or digest == _ZERO:
            raise SystemExit(f"{name}: {digest} is no digest of a built image; nothing was changed")
    if unknown := set(wanted) - set(digests(overlay)):
        raise SystemExit(f"{overlay} has no image {min(unknown)}; nothing was changed")
    path = ROOT / overlay / "kustomization.yaml"
    path.write_text(pinned(_read(overlay), wanted), "utf-8")
    for name, digest in sorted(wanted.items()):
        print(f"{overlay}: {name} is {digest}")


def _read(overlay: str) -> str:
    path = ROOT / overlay / "kustomization.yaml"
    if not path.exists():
        raise SystemExit(f"there is no overlay {overlay}")
    return path.read_text("utf-8")


def main(arguments: list[str]) -> int:
    """Promote, or pin one image."""
    parser = argparse.ArgumentParser(description="Promote images between overlays by digest.")
    parser.add_argument("--image", metavar="NAME=DIGEST", action="append", default=[])
    parser.add_argument("overlays", metavar="OVERLAY", nargs="+", help="[FROM] TO")
    given = parser.parse_args(arguments)
    if given.image:
        wanted = dict(each.split("=", 1) for each in given.image)
        for overlay in given.overlays:
            write(overlay, wanted)
        return 0
    if len(given.overlays) != 2:
        parser.error("name the overlay to promote from, and the one to promote to")
    source, target = given.overlays
    there = digests(target)
    write(target, {name: digest for name, digest in digests(source).items() if name in there})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
