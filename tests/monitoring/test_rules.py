"""Alerts and dashboards: each fires when it should and only then, and asks for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import dashboards
from tests.house import tree
from tests.monitoring.rules import (
    ALERTS,
    MONITORING,
    RULES,
    grouped_by,
    known,
    labels_of,
    named,
    promtool,
    rules,
)

TESTS = sorted((MONITORING / "tests").glob("*.yml"))
RUNBOOKS = tree.ROOT / "docs" / "runbooks"
NAMES = [rule["alert"] for rule in rules(ALERTS)]


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    # Debian builds its promtool without Kubernetes: that part is looked at by the next test.
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    for job in configuration["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)
    shutil.copytree(MONITORING, tmp_path, dirs_exist_ok=True)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration), "utf-8")

    code, said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert code == 0, said
    assert said.count("rules found") == len(ALERTS) + len(RULES), said


def test_pods_are_found_once_through_endpoint_slices() -> None:
    """`endpoints` is deprecated, and a pod that two jobs scrape is counted twice."""
    configuration = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    found = [x for x in configuration["scrape_configs"] if "kubernetes_sd_configs" in x]
    assert len(found) == 1
    assert [x["role"] for x in found[0]["kubernetes_sd_configs"]] == ["endpointslice"]
    meta = {y for x in found[0]["relabel_configs"] for y in x["source_labels"]}
    assert all(
        re.match(r"__meta_kubernetes_(endpointslice|service|namespace|pod)", x) for x in meta
    )


@pytest.mark.parametrize(
    "file",
    # Those of the objectives look back over days, and take as long as all others together.
    [pytest.param(x, id=x.stem, marks=[pytest.mark.slow] * (x.stem == "slo")) for x in TESTS],
)
def test_every_alert_fires_resolves_and_is_silent_as_its_test_says(file: Path) -> None:
    code, said = promtool("test", "rules", file)
    assert code == 0, said


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tested_silent_firing_and_over(name: str) -> None:
    """What was never seen firing may not be able to."""
    every = [x for file in TESTS for x in yaml.safe_load(file.read_text("utf-8"))["tests"]]
    cases = [x for x in every if x["name"] == name]
    assert len(cases) == 1
    asked = cases[0]["promql_expr_test"]
    assert all(f'alertname="{name}", alertstate="firing"' in x["expr"] for x in asked)
    assert [bool(x["exp_samples"]) for x in asked] == [False, True, False]


@pytest.mark.parametrize("rule", rules(ALERTS), ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, object]) -> None:
    """Whoever is woken by it opens the page it names."""
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert labels["severity"] in {"page", "critical", "warning", "ticket"}
    assert annotations["summary"]
    assert annotations["description"]
    page = tree.ROOT / annotations["runbook_url"]
    assert page.stem == rule["alert"]
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.stem}\n")
    assert "**Look at**" in text
    assert "**Do**" in text


def test_there_is_no_page_without_its_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(NAMES)


@pytest.mark.parametrize(
    "asked",
    [
        *(pytest.param(x["expr"], id=x.get("alert") or x["record"]) for x in rules(ALERTS + RULES)),
        *(pytest.param(ask, id=title) for title, ask in dashboards.expressions()),
    ],
)
def test_what_is_asked_for_exists(asked: str) -> None:
    """A metric that was renamed leaves an alert that never fires, and a panel that is empty."""
    names = named(asked)
    assert names
    assert names <= known()
    assert grouped_by(asked) <= set().union(*(labels_of(name) for name in names))


def test_the_dashboards_are_those_that_the_script_writes() -> None:
    for path, text in dashboards.written().items():
        assert path.read_text("utf-8") == text, "run `make docs`"


def test_every_panel_asks_what_prometheus_can_read(tmp_path: Path) -> None:
    asked = [
        re.sub(r"\$__rate_interval", "5m", ask).replace("$namespace", ".*")
        for _, ask in dashboards.expressions()
    ]
    wrapped = [{"record": f"panel:{n}", "expr": ask} for n, ask in enumerate(asked)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": wrapped}]}), "utf-8")

    code, said = promtool("check", "rules", file)
    assert code == 0, said


def test_panels_have_a_purpose_a_unit_and_a_place_of_their_own() -> None:
    for text in dashboards.written().values():
        document = json.loads(text)
        panels = [x for x in document["panels"] if x["type"] != "row"]
        assert len({json.dumps(x["gridPos"]) for x in panels}) == len(panels)
        assert len({x["id"] for x in document["panels"]}) == len(document["panels"])
        for panel in panels:
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]


def test_the_check_of_the_dashboards_finds_one_that_is_stale(tmp_path: Path) -> None:
    """A check that cannot fail protects nothing."""
    name = "millstream-overview.json"
    folders = ("monitoring/grafana", "k8s/components/grafana")
    for part in ("scripts/dashboards.py", *(f"{folder}/{name}" for folder in folders)):
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree.ROOT / part, tmp_path / part)
    command = [sys.executable, "scripts/dashboards.py", "--check"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0

    page = tmp_path / folders[0] / name
    page.write_text(page.read_text("utf-8").replace("Runs that ended", "Other runs"), "utf-8")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "stale" in done.stdout) == (1, True)


# -- the tests can fail ------------------------------------------------------------------------

#: What courses and dashboards commonly have in these two places.
COMMON = {
    "WorkflowFailureRate": (
        '(rate(workflow_executions_total{status="failed"}[5m])'
        " / rate(workflow_executions_total[5m])) > 0.1"
    ),
    "MCPToolCallLatency": (
        "histogram_quantile(0.95, rate(mcp_tool_duration_seconds_bucket[5m])) > 10"
    ),
}


def changed(tmp_path: Path, expressions: dict[str, str]) -> str:
    """Return what the tests of these alerts say when they ask something else."""
    shutil.copytree(MONITORING, tmp_path / "m")
    for file in (tmp_path / "m" / "alerts").glob("*.yml"):
        content = yaml.safe_load(file.read_text("utf-8"))
        for group in content["groups"]:
            for rule in group["rules"]:
                rule["expr"] = expressions.get(rule["alert"], rule["expr"])
        file.write_text(yaml.safe_dump(content), "utf-8")
    wanted = [
        tmp_path / "m" / "tests" / file.name
        for file in TESTS
        if any(f"name: {name}\n" in file.read_text("utf-8") for name in expressions)
    ]
    return "".join(promtool("test", "rules", file)[1] for file in wanted)


def failed(said: str) -> set[str]:
    """Return the alerts whose tests failed."""
    return set(re.findall(r'expr: .*?alertname=\\?"(\w+)', said))


@pytest.mark.parametrize("name", COMMON)
def test_the_common_mistakes_are_found(tmp_path: Path, name: str) -> None:
    """A series divided by itself is always 1; a quantile never exceeds the last bucket."""
    assert name in failed(changed(tmp_path, {name: COMMON[name]}))


@pytest.mark.slow
@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1) > 0"], ids=["never", "always"])
def test_an_alert_that_never_or_always_fires_fails_its_test(
    tmp_path: Path, expression: str
) -> None:
    assert failed(changed(tmp_path, dict.fromkeys(NAMES, expression))) == set(NAMES)
