"""The models' file: what is wrong with it is said in one line, at start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millstream.errors import ConfigError, InferenceRejected
from millstream_worker.inference import catalogue
from millstream_worker.inference.backends import Backend, BackendOptions
from millstream_worker.inference.declared import (
    Isolation,
    Load,
    ModelSpec,
    load_models,
    parse_models,
)
from millstream_worker.inference.devices import devices_for
from millstream_worker.inference.monitors.host import HostMonitor
from millstream_worker.inference.process import ProcessEngine

FULL = """
gpu_memory_fraction = 0.7
gpu_memory_share = 0.35
host_memory_fraction = 0.5
isolation = "process"

[models.embedder]
backend = "hashing"
dimensions = 64
batch_size = 16
max_tokens = 4096
max_wait = 0.002
load = "start"
queue = 99

[models.chat]
backend = "openai"
url = "http://vllm:8000/v1"
api_key = "${env:LLM_KEY}"
"""


def test_every_setting_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_KEY", "sk-very-secret")
    file = tmp_path / "models.toml"
    file.write_text(FULL, "utf-8")
    declared = load_models(file)
    assert (declared.gpu_memory_fraction, declared.gpu_memory_share) == (0.7, 0.35)
    assert (declared.host_memory_fraction, declared.isolation) == (0.5, Isolation.PROCESS)
    embedder = declared.models["embedder"]
    assert (embedder.batch_size, embedder.max_tokens, embedder.max_wait_s) == (16, 4096, 0.002)
    assert (embedder.load, embedder.queue) == (Load.START, 99)
    assert dict(embedder.options) == {"dimensions": 64}
    assert "secret" not in repr(declared)


def test_json_is_read_as_well(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text('{"models": {"m": {"backend": "hashing"}}}', "utf-8")
    assert list(load_models(file).models) == ["m"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "no models"),
        ({"models": {"m": {}}}, "models.m.backend must be a text"),
        ({"model": {}}, "model is not an option"),
        ({"models": {"a b": {"backend": "hashing"}}}, "model name 'a b'"),
        ({"models": {"m": {"backend": "x", "batch_size": 0}}}, "batch_size must be a number"),
        ({"models": {"m": {"backend": "x", "api_key": "sk-1"}}}, "must be a reference"),
        ({"models": {"m": {"backend": "x", "api_key": "${env:NOT_SET_AT_ALL}"}}}, "is not set"),
        ({"models": {"m": {"backend": "x"}}, "gpu_memory_fraction": 1.5}, "from 0.01 to 1"),
        ({"models": {"m": {"backend": "x", "load": "never"}}}, "must be one of first, start"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(document: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_models(document)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ModelSpec(name="m", backend="magic"), "there is no backend 'magic'"),
        (ModelSpec(name="m", backend="no.such:Thing"), "cannot be imported"),
        (ModelSpec(name="m", backend="pathlib:Path"), "is no subclass"),
        (
            ModelSpec(name="m", backend="hashing", options={"dimension": 3}),
            "'dimension' is no option",
        ),
    ],
)
def test_a_backend_that_cannot_be_made_says_why(spec: ModelSpec, said: str) -> None:
    with pytest.raises(InferenceRejected, match=said):
        catalogue.make(spec)


@pytest.mark.parametrize(
    ("isolation", "backends", "apart"),
    [
        ("auto", ["hashing"], False),
        ("auto", ["hashing", "transformers"], True),
        ("auto", ["torch"], True),
        ("auto", ["hashing", "transformers on a card"], False),
        ("auto", ["tests.inference.slow_backend:Recording"], False),
        ("thread", ["transformers"], False),
        ("process", ["hashing"], True),
    ],
)
def test_the_host_has_a_process_where_torch_computes(
    isolation: str, backends: list[str], apart: bool
) -> None:
    models = {}
    for number, given in enumerate(backends):
        backend, _, card = given.partition(" on a ")
        models[f"m{number}"] = {"backend": backend, "device": "cuda" if card else "cpu"}
        if backend in {"transformers", "torch"}:
            models[f"m{number}"]["path"] = "/models/any"
    declared = parse_models({"isolation": isolation, "models": models})
    (device,) = devices_for(declared.models["m0"], declared)
    engine = device.start(
        lambda _: Backend(BackendOptions(model="m", path=None, options={})),
        declared.models.__getitem__,
    )
    assert isinstance(engine, ProcessEngine) is apart
    # What lies there counts in the host's memory.
    assert isinstance(device.monitor, HostMonitor)
    children = device.monitor._children()
    assert children == ([engine.pid] if isinstance(engine, ProcessEngine) else [])
    engine.close()
