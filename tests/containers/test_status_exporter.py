"""The status exporter, against a fake REST API and a fake /proc."""

import importlib.util
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "docker/monitoring/status_exporter.py"
CONFIG = """
# written by hand
model_config_list {
  config { name: "m" base_path: "/models/m" model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
    version_labels: { key: 'canary', value: 2 };
  }
  config: < name: "gone" base_path: "/models/gone" model_platform: "tensorflow" >
}
"""
STATUS = """{"model_version_status": [
 {"version": "2", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "x"}},
 {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}"""


@pytest.fixture(scope="module")
def exporter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("status_exporter", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class RestApi(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/v1/models/m"
        body = (STATUS if known else '{"error": "not known"}').encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *message: object) -> None:
        """Do not log."""


@pytest.fixture(scope="module")
def rest_api() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), RestApi) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def page(exporter: ModuleType, server: str, config: Path) -> list[str]:
    text: str = exporter.render([*exporter.of_models(server, config, 5.0)])
    return text.splitlines()


def test_states_failures_and_labels_are_exported(
    exporter: ModuleType, rest_api: str, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"
    config.write_text(CONFIG)
    lines = page(exporter, rest_api, config)
    assert "shortlist_server_up 1" in lines
    assert 'shortlist_model_available_versions{model="m"} 1' in lines
    assert 'shortlist_model_available_versions{model="gone"} 0' in lines
    assert 'shortlist_version_state{model="m",version="2",state="END"} 1' in lines
    assert 'shortlist_version_failed{model="m",version="2",code="NOT_FOUND"} 1' in lines
    assert 'shortlist_label_version{model="m",label="canary"} 2' in lines
    assert 'shortlist_label_available{model="m",label="stable"} 1' in lines
    assert 'shortlist_label_available{model="m",label="canary"} 0' in lines


def test_a_server_that_does_not_answer_is_a_metric_and_not_a_failure(
    exporter: ModuleType, tmp_path: Path
) -> None:
    config = tmp_path / "models.config"
    config.write_text(CONFIG)
    lines = page(exporter, "http://127.0.0.1:1", config)
    assert "shortlist_server_up 0" in lines
    assert "shortlist_config_readable 1" in lines


@pytest.mark.parametrize("text", [None, "model_config_list {", "a { b: "])
def test_a_configuration_that_cannot_be_read_is_a_metric(
    exporter: ModuleType, rest_api: str, tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "models.config"
    if text is not None:
        config.write_text(text)
    assert page(exporter, rest_api, config)[-1] == "shortlist_config_readable 0"


def test_what_serving_writes_is_understood(exporter: ModuleType, tmp_path: Path) -> None:
    """The exporter has its own parser, because it runs without our packages."""
    from shortlist.serving.repository.server_config import ModelEntry, write_config

    config = tmp_path / "models.config"
    entry = ModelEntry(versions=(3, 4), labels={"stable": 3, "canary": 4})
    write_config(config, tmp_path, {"retrieval_ivf": entry})
    [model] = exporter.read_models(config)
    assert model.name == "retrieval_ivf"
    assert model.labels == {"stable": 3, "canary": 4}


def test_the_process_is_found_behind_a_first_process(exporter: ModuleType, tmp_path: Path) -> None:
    """Process 1 forwards signals; its command line also names the server."""
    for pid, command, kib in (
        ("1", ["/sbin/docker-init", "--", "/usr/bin/tensorflow_model_server"], 10),
        (
            "7",
            ["/opt/shortlist/bin/python", "-m", "shortlist.serving.embedded", "--port=8500"],
            2048,
        ),
        ("8", [], 0),
    ):
        folder = tmp_path / pid
        folder.mkdir()
        (folder / "cmdline").write_text("\0".join([*command, ""]))
        (folder / "status").write_text(f"Name:\tx\nVmRSS:\t{kib} kB\nThreads:\t12\n")
        (folder / "stat").write_text("7 (a b) c) S " + " ".join(["0"] * 10) + " 150 50 0 0\n")
    samples = {
        sample.metric: sample.value
        for sample in exporter.of_process(
            ["tensorflow_model_server", "shortlist.serving.embedded"], proc=tmp_path
        )
    }
    assert samples["server_resident_memory_bytes"] == 2048 * 1024
    assert samples["server_threads"] == 12
    assert samples["server_cpu_seconds_total"] > 0


def test_a_file_of_metrics_is_added_if_it_is_there(
    exporter: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`shortlist monitor` may not run, or not yet."""
    path = tmp_path / "monitor.prom"
    assert exporter.of_file(path) == ""
    assert capsys.readouterr().err == ""
    path.write_text("a 1")
    assert exporter.of_file(path) == "a 1\n"
    assert exporter.of_file(tmp_path) == ""
    assert f"cannot read {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"), [("4g", 4 << 30), ("4Gi", 4 << 30), ("512m", 512 << 20), ("1000", 1000)]
)
def test_sizes_are_read_as_docker_and_kubernetes_write_them(
    exporter: ModuleType, text: str, size: int
) -> None:
    assert exporter.size_bytes(text) == size


def test_a_wrong_size_says_what_a_right_one_is(exporter: ModuleType) -> None:
    with pytest.raises(ValueError, match="not a size: 'lots'; write 4g"):
        exporter.size_bytes("lots")
