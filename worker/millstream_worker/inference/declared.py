"""The models of a worker, as values: the file that ``--models`` names, in TOML or JSON.

Promise: what is wrong with the file is said in one line at start. No repr shows a secret. Nothing
is loaded and no library is imported.

    gpu_memory_fraction = 0.8

    [models.embedder]
    backend = "transformers"        # hashing, transformers, openai, or module:Class of your own
    task = "embedding"
    path = "/models/bge-small-en"
    batch_size = 32
    max_wait = 0.005

    [models.chat]
    backend = "openai"
    url = "http://vllm:8000/v1"
    served_as = "qwen"
    api_key = "${env:LLM_KEY}"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from millstream.errors import ConfigError
from millstream_worker.inference.profile import Batching
from millstream_worker.tools.credentials import Sealed
from millstream_worker.tools.entries import Entry

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_COMMON = "backend path device batch_size max_tokens max_wait load queue api_key url"
_TOP = "gpu_memory_fraction gpu_memory_share host_memory_fraction isolation hang_timeout models"

#: What waits for one model at most.
MOST_WAITING = 10_000


class Load(StrEnum):
    """When a model is loaded."""

    FIRST = "first"  # when it is called for the first time
    START = "start"  # when the worker starts


class Isolation(StrEnum):
    """Where a device is run from."""

    AUTO = "auto"  # a process for a CUDA device, and for a host that computes with torch
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: what computes it, and how it is batched."""

    name: str
    backend: str
    path: Path | None = None
    url: str = ""
    api_key: Sealed | None = None
    #: ``auto``, ``cpu``, ``cuda``, or the UUID of a device.
    device: str = "auto"
    batch_size: int = 32
    max_tokens: int = 65_536
    max_wait_s: float = 0.005
    load: Load = Load.FIRST
    queue: int = MOST_WAITING
    #: What only this backend understands.
    options: Mapping[str, Any] = field(default_factory=dict)

    def batching(self, step: int, *, padding: bool, continuous: bool = False) -> Batching:
        """Return how its items are batched, given how the backend pads."""
        return Batching(
            items=self.batch_size,
            tokens=self.max_tokens,
            max_wait_s=self.max_wait_s,
            step=step,
            padding=padding,
            continuous=continuous,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Everything that a models' file says."""

    models: Mapping[str, ModelSpec]
    gpu_memory_fraction: float = 0.8
    gpu_memory_share: float | None = None
    host_memory_fraction: float = 0.6
    isolation: Isolation = Isolation.AUTO
    #: A device's process that gives no sign of life for so long is killed.
    hang_timeout_s: float = 60.0


#: What there is without a file: an embedder that needs nothing.
BUILT_IN = Declared(
    models={name: ModelSpec(name=name, backend="hashing") for name in ("hashing", "embedder")}
)


def load_models(path: Path) -> Declared:
    """Read a file, or raise `ConfigError` with one line that says what to do."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the models from {path}: {error.strerror}; correct --models"
        ) from error
    try:
        document = (
            msgspec.json.decode(text)
            if path.suffix == ".json"
            else tomllib.loads(text.decode("utf-8"))
        )
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path} is not {kind}: {error}; correct it") from error

    try:
        return parse_models(document)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_models(document: Any) -> Declared:
    """Return what a decoded file says."""
    entry = Entry("models file", document)
    entry.only(_TOP)
    models = entry.child("models")
    specs = {name: _spec(name, models.child(name)) for name in models}
    if not specs:
        raise ConfigError(
            "no models; write [models.NAME] with a backend, as docs/inference.md says"
        )
    share = entry.number("gpu_memory_share", 0, 0.01, 1) if "gpu_memory_share" in entry else None
    return Declared(
        models=specs,
        gpu_memory_fraction=entry.number("gpu_memory_fraction", 0.8, 0.01, 1),
        gpu_memory_share=share,
        host_memory_fraction=entry.number("host_memory_fraction", 0.6, 0.01, 1),
        isolation=Isolation(entry.choice("isolation", Isolation, Isolation.AUTO)),
        hang_timeout_s=entry.number("hang_timeout", 60, 1, 86_400),
    )


def _spec(name: str, entry: Entry) -> ModelSpec:
    # The name is a label of metrics and stands in journals.
    if not _NAME.fullmatch(name):
        raise ConfigError(f"model name {name!r}: use 1 to 64 letters, digits and . _ -")

    path = entry.text("path", "")
    return ModelSpec(
        name=name,
        backend=entry.text("backend"),
        path=Path(path) if path else None,
        url=entry.text("url", ""),
        api_key=_key(entry),
        device=entry.text("device", "auto"),
        batch_size=int(entry.number("batch_size", 32, 1, 4096, whole=True)),
        max_tokens=int(entry.number("max_tokens", 65_536, 1, 100_000_000, whole=True)),
        max_wait_s=entry.number("max_wait", 0.005, 0, 10),
        load=Load(entry.choice("load", Load, Load.FIRST)),
        queue=int(entry.number("queue", MOST_WAITING, 1, 1_000_000, whole=True)),
        options=entry.rest(_COMMON),
    )


def _key(entry: Entry) -> Sealed | None:
    text = entry.text("api_key", "")
    if not text:
        return None
    if "${" not in text:
        raise entry.wrong("api_key", "must be a reference: ${env:NAME} or ${file:/path}")
    return entry.sealed("api_key", text)
