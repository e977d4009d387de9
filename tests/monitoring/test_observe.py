"""A real Prometheus on real processes: targets are up, rules evaluate, a failure fires its alert.

The rules are those that are shipped, with the waits before an alert cut to a second.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.program import APP, Program, Started
from tests.monitoring.rules import MONITORING, program
from tests.servers import RedisServer, _free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Prometheus:
    """A Prometheus that scrapes every second what it is told to."""

    def __init__(self, directory: Path, port: int) -> None:
        self._targets = directory / "targets.json"
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def watch(self, **ports: int) -> None:
        """Scrape these jobs, and no others."""
        found = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"job": f"millstream-{job}"}}
            for job, port in ports.items()
        ]
        self._targets.write_text(json.dumps(found), "utf-8")

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=5) as answer:
            return json.loads(answer.read())["data"]

    def up(self) -> set[str]:
        """The jobs whose target answers."""
        targets = self.ask("targets")["activeTargets"]
        return {x["labels"]["job"] for x in targets if x["health"] == "up"}

    def unwell(self) -> list[str]:
        """The rules that cannot be evaluated, or have not been."""
        found = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        assert len(found) > 30
        return [rule["name"] for rule in found if rule["health"] != "ok"]

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {
            x["labels"]["alertname"] for x in self.ask("alerts")["alerts"] if x["state"] == "firing"
        }


def until(condition: Callable[[], Any], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                break
        except OSError:
            pass  # it has only just been started
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    print(f"  {what}")


def impatient(directory: Path) -> None:
    """Write the shipped rules, with an alert after a second of what it waits minutes for."""
    for part in ("rules", "alerts"):
        shutil.copytree(MONITORING / part, directory / part)
    for file in (directory / "alerts").glob("*.yml"):
        text = re.sub(r"^(\s+for: )\S+$", r"\g<1>1s", file.read_text("utf-8"), flags=re.MULTILINE)
        file.write_text(text, "utf-8")


@contextmanager
def prometheus(directory: Path) -> Iterator[Prometheus]:
    directory.mkdir()
    impatient(directory)
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml", "alerts/*.yml"],
        "scrape_configs": [
            {
                "job_name": "millstream",
                "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
            }
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration), "utf-8")
    port = _free_port()
    made = Prometheus(directory, port)
    made.watch()
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield made
        finally:
            process.terminate()
            process.wait(20)


def metrics_port(started: Started) -> int:
    found = re.search(r"metrics on port (\d+)", started.until("metrics on port"))
    assert found
    return int(found[1])


def test_an_induced_failure_fires_its_alert_and_its_end_ends_it(tmp_path: Path) -> None:
    """From the process to the alert, through everything that is shipped."""
    program("prometheus")
    (tmp_path / "flows.py").write_text(APP, "utf-8")
    with RedisServer() as server, prometheus(tmp_path / "prometheus") as watching:
        millstream = Program(tmp_path, {"MILLSTREAM_REDIS": server.url})
        flags = ("--http", "-1", "--metrics", "0", "--host", "127.0.0.1", "--lease", "1")
        scheduler = millstream.start("scheduler", *flags, "--sample", "0.5")
        worker = millstream.start("worker", "flows:app", *flags)
        started = [scheduler, worker]
        try:
            ports = {"scheduler": metrics_port(scheduler), "worker": metrics_port(worker)}
            watching.watch(**ports)
            until(lambda: watching.up() >= {f"millstream-{x}" for x in ports}, "targets are up")
            until(lambda: not watching.unwell(), "all rules are evaluated")
            millstream("enqueue", "add", "-a", "a=1", "--wait")
            until(lambda: not watching.firing(), "nothing fires while all is well")

            for _ in range(8):
                millstream("enqueue", "fails", "--wait")
            until(lambda: "WorkflowFailureRate" in watching.firing(), "failing runs fire")

            worker.process.kill()
            worker.process.wait()
            millstream("enqueue", "add", "-a", "a=1")
            dead = {"TargetDown", "WorkersMissing", "QueueWithoutWorkers"}
            until(lambda: watching.firing() >= dead, "a dead worker fires")

            again = millstream.start("worker", "flows:app", *flags)
            started.append(again)
            watching.watch(scheduler=ports["scheduler"], worker=metrics_port(again))
            until(lambda: not watching.firing() & dead, "its successor ends that")

            scheduler.process.kill()
            scheduler.process.wait()
            blind = {"NoLeader", "QueueGaugesMissing"}
            until(lambda: watching.firing() >= blind, "a dead scheduler fires")
        finally:
            for each in started:
                each.stop()
