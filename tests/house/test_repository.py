"""Facts that stand in two files of this repository, held equal."""

from __future__ import annotations

import re

import pytest

from tests.house import tree

MAKEFILE = (tree.ROOT / "Makefile").read_text("utf-8")
DOCKERFILE = (tree.ROOT / "Dockerfile").read_text("utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_make_command_that_a_page_names_exists(page: str) -> None:
    """A reader copies these lines; the first one that fails ends the visit."""
    path = tree.ROOT / page
    if not path.exists():
        pytest.skip(f"there is no {page} yet")
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))

    # In code only: prose may use the verb.
    named = re.findall(r"(?:^|`|\s{4})make ([a-z0-9-]+)", path.read_text("utf-8"), re.MULTILINE)

    assert sorted(set(named) - targets) == []


def test_every_make_target_explains_itself() -> None:
    """`make` without a word prints all that can be asked for."""
    targets = re.findall(r"^[a-z0-9-]+:(?!=).*$", MAKEFILE, re.MULTILINE)

    assert [line for line in targets if "# " not in line] == []


def test_no_lock_file_is_in_the_tree() -> None:
    """A lock file names the registry of the machine that wrote it."""
    names = ("package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "uv.lock", "poetry.lock")

    assert [name for name in names if (tree.ROOT / name).exists()] == []


def test_the_image_names_extras_and_a_command_that_exist() -> None:
    """A renamed extra would otherwise be found out when the image is built."""
    project = tree.project()["project"]
    extras = re.findall(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)
    commands = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]', DOCKERFILE, re.MULTILINE)

    assert len(extras) == len(commands) == 1
    assert set(extras[0].split(",")) <= set(project["optional-dependencies"])
    assert commands[0] in project["scripts"]


def test_the_image_carries_every_package_and_its_version() -> None:
    """A package that the builder does not see is missing from the wheel."""
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE))
    version = re.findall(r"^ARG VERSION=(\S+)", DOCKERFILE, re.MULTILINE)

    assert {package.relative_to(tree.ROOT).parts[0] for package in tree.packages()} <= copied
    assert version == [tree.project()["project"]["version"]]


def test_the_image_runs_as_a_numbered_user_and_drains_on_sigterm() -> None:
    """Kubernetes can only prove that a user is not root when it is a number."""
    assert re.search(r"^USER 10001(:10001)?$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^EXPOSE 8080 8081 9090$", DOCKERFILE, re.MULTILINE)
