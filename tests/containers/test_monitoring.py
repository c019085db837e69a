"""Alerts and dashboard: every metric in them is exported by something."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from shortlist.export.monitor.metrics import HELP, PREFIX
from shortlist.serving.embedded.api.errors import Code
from shortlist.serving.embedded.api.metrics import Metrics
from tests.support.paths import ROOT
from tests.support.recorded import RECORDED

DOCKER = ROOT / "docker"
MONITORING = DOCKER / "monitoring"
METRIC = re.compile(r"(?:shortlist_|:tensorflow:|model_name:)[a-zA-Z0-9_:]+|\bup\b")
SUFFIXES = re.compile(r"_(?:bucket|sum|count)$")


def dashboard() -> dict[str, Any]:
    path = MONITORING / "grafana/dashboards/shortlist.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    listed = dashboard()["templating"]["list"]
    asked = [entry["query"]["query"] for entry in listed if entry["type"] == "query"]
    marked = [entry["expr"] for entry in dashboard()["annotations"]["list"]]
    return [*shown, *asked, *marked, *(rule["expr"] for rule in rules())]


def exported() -> set[str]:
    """Return the metrics of server, status exporter, monitor, rules and Prometheus itself."""
    metrics = Metrics()
    metrics.request("m", Code.OK)
    metrics.request_log("m", "written", 1)
    server = re.findall(r"^# TYPE (\S+)", metrics.page().decode(), re.MULTILINE)
    exporter = re.search(
        r"^HELP = \{(.*?)^\}", (MONITORING / "status_exporter.py").read_text(), re.S | re.M
    )
    assert exporter is not None
    of_exporter = [f"shortlist_{name}" for name in re.findall(r'^    "(\w+)":', exporter[1], re.M)]
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    of_monitor = [f"{PREFIX}{name}" for name in HELP]
    return {"up", *server, *of_exporter, *of_monitor, *recorded}


def test_every_queried_metric_is_exported() -> None:
    known = exported()
    assert len(known) > 15
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    unknown = {name for name in asked if name not in known and SUFFIXES.sub("", name) not in known}
    assert not unknown


@pytest.mark.conformance
def test_the_servers_metrics_are_those_of_tensorflow_serving(conformance_metrics: set[str]) -> None:
    """So the alerts also work with the stock image."""
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    of_server = {SUFFIXES.sub("", name) for name in asked if name.startswith(":tensorflow:")}
    # `request_count` ends like a histogram's part and is a counter. The stock server counts no
    # records of request logs, as it writes none.
    assert {name for name in of_server if name not in conformance_metrics} <= {
        ":tensorflow:serving:request",
        ":tensorflow:serving:request_log",
        ":tensorflow:cc:saved_model:load_attempt",
    }


@pytest.fixture
def conformance_metrics() -> set[str]:
    recorded = RECORDED / "scenarios" / "monitoring_default_path.json"
    return set(re.findall(r'"(:tensorflow:\S+) (?:counter|gauge|histogram)"', recorded.read_text()))


def test_every_alert_has_a_test_a_severity_and_advice() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert fired == alerts.keys()
    for name, alert in alerts.items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["annotations"].keys() == {"summary", "description"}, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")]
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    group = {
        "name": "panels",
        "rules": [
            {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "1m")}
            for number, query in enumerate(queries)
        ],
    }
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap_and_say_what_they_measure() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    titles = " ".join(panel["title"] for panel in panels()).lower()
    for word in ("requests", "p50", "p95", "p99", "fail", "versions", "memory"):
        assert word in titles, word
