"""What kind of thing a file is, by its path: the one table behind every count of the study."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath


class Kind(StrEnum):
    """What a file is for."""

    CODE = "code"
    TESTS = "tests"
    DOCS = "docs"
    SETUP = "setup"  # configuration, builds, continuous integration
    DATA = "data"
    GENERATED = "generated"  # lock files, vendored and minified code: written by programs


LANGUAGES = {
    "Python": "py pyi pyx", "JavaScript": "js mjs cjs jsx", "TypeScript": "ts tsx mts cts",
    "Go": "go", "Rust": "rs", "C": "c h", "C++": "cc cpp cxx hpp hh hxx", "Java": "java",
    "Kotlin": "kt kts", "C#": "cs", "Ruby": "rb rake", "PHP": "php", "Swift": "swift",
    "Scala": "scala", "Elixir": "ex exs", "Erlang": "erl hrl", "Haskell": "hs", "Lua": "lua",
    "Perl": "pl pm", "R": "r", "Julia": "jl", "Dart": "dart", "Zig": "zig", "Clojure": "clj cljs",
    "OCaml": "ml mli", "Shell": "sh bash zsh fish", "PowerShell": "ps1", "SQL": "sql",
    "HTML": "html htm", "CSS": "css scss sass less", "Vue": "vue", "Svelte": "svelte",
    "Protocol Buffers": "proto", "Objective-C": "m mm", "Assembly": "asm s", "Nix": "nix",
    "Terraform": "tf",
}  # fmt: skip
_LANGUAGE = {suffix: name for name, suffixes in LANGUAGES.items() for suffix in suffixes.split()}

_DOCS = {"md", "rst", "txt", "adoc", "org", "tex"}
_SETUP = {"toml", "yaml", "yml", "ini", "cfg", "conf", "json", "xml", "gradle", "cmake", "mk"}
_SETUP_NAMES = re.compile(
    r"(?i)^(dockerfile.*|makefile|gemfile|rakefile|procfile|jenkinsfile|justfile|cmakelists\.txt"
    r"|go\.mod|requirements.*\.txt|\..*rc|\.git.*|\.docker.*|\.env.*|codeowners)$"
)
_GENERATED = re.compile(
    r"(?i)(^|/)(vendor|third_party|node_modules|dist|\.yarn)/"
    r"|(^|/)(package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock"
    r"|uv\.lock|cargo\.lock|gemfile\.lock|composer\.lock|go\.sum|flake\.lock)$"
    r"|\.min\.(js|css)$|\.(pb\.go|map|snap)$|_pb2(_grpc)?\.pyi?$"
)
_TESTS = re.compile(
    r"(?i)(^|/)(tests?|specs?|__tests__|testing|testdata|fixtures)/"
    r"|(^|/)(test_[^/]+|conftest)\.py$|[._-](test|tests|spec)\.[a-z]+$|_test\.[a-z]+$"
    r"|[a-z0-9]Tests?\.(java|kt|cs|swift|scala|php)$"
)


def kind_of(path: str) -> Kind:
    """Return what a file is for."""
    if _GENERATED.search(path):
        return Kind.GENERATED
    name, suffix = PurePosixPath(path).name, _suffix(path)
    if _TESTS.search(path):
        return Kind.TESTS
    if path.startswith(("docs/", "doc/")) or suffix in _DOCS:
        return Kind.SETUP if _SETUP_NAMES.match(name) else Kind.DOCS
    if path.startswith((".github/", ".ci/", ".circleci/")) or _SETUP_NAMES.match(name):
        return Kind.SETUP
    if suffix in _LANGUAGE:
        return Kind.CODE
    return Kind.SETUP if suffix in _SETUP else Kind.DATA


def language_of(path: str) -> str | None:
    """Return the programming language of a file."""
    return _LANGUAGE.get(_suffix(path))


def area_of(path: str) -> str:
    """Return the part of the repository that a file belongs to: at most two directories deep."""
    parts = PurePosixPath(path).parts[:-1]
    return "/".join(parts[:2]) + "/" if parts else "(top level)"


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()
