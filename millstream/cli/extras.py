"""The optional parts: imported when they are needed, and named when they are not installed."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from millstream.errors import MissingExtra

#: Extra -> the packages by which it is known.
EXTRAS = {
    "memory": ("fakeredis", "lupa"),
    "worker": (
        "aiohttp",
        "cronsim",
        "hiredis",
        "jsonschema",
        "mcp",
        "prometheus_client",
        "structlog",
        "uvloop",
    ),
    "gateway": (
        "aiohttp",
        "cryptography",
        "hiredis",
        "jinja2",
        "jwt",
        "mcp",
        "prometheus_client",
        "structlog",
        "uvloop",
    ),
    "schedules": ("cronsim",),
    "scheduler": ("aiohttp", "cronsim", "hiredis", "prometheus_client", "structlog", "uvloop"),
    "tracing": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "inference": ("numpy",),
    "sealing": ("cryptography",),
    "bench": ("matplotlib", "psutil"),
    "gpu": ("pynvml",),
    "torch": ("torch", "transformers"),
}


def part_of(extra: str, module: str) -> Any:
    """Import a process. Raises `MissingExtra` that names what is missing and how it is had."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, error.name or module) from error


def missing(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if not _there(name)]


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package that it would be a part of
        return False
