"""``millstream models``: what workers say of their models, for people and for programs."""

from __future__ import annotations

import time

import msgspec

from tests.cli.program import Program
from tests.servers import RedisServer

MODELS = '[models.embedder]\nbackend = "hashing"\ndimensions = 16\n'
NOTE = {
    "host": "gpu-1",
    "models": [
        {
            "model": "embedder", "backend": "transformers", "state": "loaded", "waiting": 17,
            "devices": [
                {
                    "device": "cuda:0", "uuid": "GPU-1", "loaded": True, "bytes": 134217728,
                    "batches": 12, "usable": 85899345920, "ceiling": 68719476736,
                    "others": 1073741824, "held": 2147483648, "headroom": 64424509440,
                    "predicted": 52428800, "observed": 50331648, "law": "kept",
                }
            ],
        },
        {"model": "chat", "backend": "openai", "state": "remote", "url": "http://vllm:8000/v1",
         "limit": 16, "running": 3, "sent": 40},
    ],
}  # fmt: skip


def test_devices_and_budgets_are_shown(program: Program, redis_server: RedisServer) -> None:
    """One line a model and device; a server has its limit there instead."""
    until = int((time.time() + 60) * 1000)
    with redis_server.client() as client:
        client.hset("millstream:{board:models}", "w1", f"{until}:".encode() + _note(NOTE))
        client.hset("millstream:{board:models}", "w2", f"{until}:".encode() + b'{"odd": 1}')

    chat, embedder = sorted(program("models", "--json").json["models"], key=lambda x: x["model"])
    assert (embedder["device"], embedder["predicted"], embedder["observed"]) == (
        "cuda:0", 52428800, 50331648,
    )  # fmt: skip
    assert chat["state"] == "remote, 3 of 16"
    heads, *lines = program("models").out.splitlines()
    assert heads.split()[:2] == ["MODEL", "BACKEND"]
    assert len(lines) == 2
    assert {"64.0Gi", "50Mi", "48Mi", "60.0Gi", "17", "kept"} <= set(lines[0].split())


def test_a_worker_says_what_it_serves_and_takes_it_down(program: Program) -> None:
    (program.directory / "models.toml").write_text(MODELS, "utf-8")
    worker = program.start(
        "worker", "flows:app", "--http", "-1", "--metrics", "-1", "--log-format", "json",
        "--models", "models.toml",
    )  # fmt: skip
    try:
        worker.until("worker_started")
        (row,) = program("models", "--json").json["models"]
        assert (row["model"], row["backend"], row["state"]) == ("embedder", "hashing", "declared")
    finally:
        answer = worker.stop()
    assert answer.code == 0, answer.err
    assert program("models", "--json").json == {"models": []}


def test_a_wrong_models_file_ends_the_worker_in_one_line(program: Program) -> None:
    (program.directory / "models.toml").write_text("[models.m]\n", "utf-8")
    answer = program("worker", "flows:app", "--http", "-1", "--models", "models.toml")
    assert answer.code == 2
    assert (
        answer.lines[-1]
        == "error: models.toml: models file.models.m.backend must be a text, not missing"
    )


def _note(value: object) -> bytes:
    return msgspec.json.encode(value)
