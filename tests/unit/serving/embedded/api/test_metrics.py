"""The metrics page has the real server's names, types and labels."""

import json

import pytest

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.metrics import Metrics
from tests.support.recorded import RECORDED


def lines(metrics: Metrics) -> list[str]:
    return metrics.page().decode().splitlines()


def test_metrics_have_no_suffixes_of_the_library() -> None:
    metrics = Metrics(iter((0.0, 0.000_015)).__next__)
    metrics.request("m", Code.OK)
    metrics.request('odd"name\\', Code.NOT_FOUND)
    with metrics.answering("m", "predict", "REST"):
        pass
    page = lines(metrics)
    name = ":tensorflow:serving:request_count"
    assert f"# TYPE {name} counter" in page
    assert f'{name}{{model_name="m",status="OK"}} 2' in page
    assert f'{name}{{model_name="odd\\"name\\\\",status="NOT_FOUND"}} 1' in page
    latency = ":tensorflow:serving:request_latency"
    labels = 'model_name="m",API="predict",entrypoint="REST"'
    assert f"# TYPE {latency} histogram" in page
    assert f'{latency}_bucket{{{labels},le="10"}} 0' in page
    assert f'{latency}_bucket{{{labels},le="18"}} 1' in page
    assert f'{latency}_bucket{{{labels},le="+Inf"}} 1' in page
    assert f"{latency}_count{{{labels}}} 1" in page
    assert not [line for line in page if "_created" in line or "_total_total" in line]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(StatusError(Code.NOT_FOUND, "no"), "NOT_FOUND"), (RuntimeError("bug"), "INTERNAL")],
)
def test_failed_requests_are_counted_and_not_measured(failure: Exception, status: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(failure)), metrics.answering("m", "predict", "REST"):
        raise failure
    page = lines(metrics)
    assert f':tensorflow:serving:request_count{{model_name="m",status="{status}"}} 1' in page
    assert not [line for line in page if "request_latency_count" in line]


def test_reload_can_ask_for_a_metric_by_tensorflows_name() -> None:
    metrics = Metrics()
    assert metrics.value("/tensorflow/serving/request_count") == 0
    metrics.request("m", Code.OK)
    assert metrics.value("/tensorflow/serving/request_count") == 1
    assert metrics.value("/no/such/metric") == 0


@pytest.mark.conformance
def test_every_recorded_name_exists() -> None:
    path = RECORDED / "rest" / "metrics.jsonl"
    recorded = json.loads(path.read_text().splitlines()[0])["response"]["metrics"]
    expected = {name for name in recorded if name.startswith(":tensorflow:serving:")}
    metrics = Metrics()
    metrics.examples("m", 3)
    metrics.runtime_latency("m", "Predict", 0.001)
    metrics.load("/m/1", 0.5, ok=True)
    metrics.warmup("/m/1", 2, 0.1, "OK")
    metrics.batch("", [0.001])
    shown = {line.removeprefix("# TYPE ") for line in lines(metrics) if line.startswith("# TYPE")}
    assert expected <= shown


def test_invented_model_names_do_not_fill_the_memory_or_hide_real_ones() -> None:
    metrics = Metrics()
    for number in range(2500):
        metrics.request(f"m{number}", Code.NOT_FOUND)
    metrics.request("x" * 64_000, Code.NOT_FOUND)
    metrics.request("real", Code.INVALID_ARGUMENT)  # it has not been answered yet
    metrics.request("real", Code.OK)
    metrics.request("real", Code.INVALID_ARGUMENT)
    page = lines(metrics)
    counted = [line for line in page if "request_count{" in line]
    assert len(counted) == 500 + 4
    count = ":tensorflow:serving:request_count"
    assert f'{count}{{model_name="(others)",status="NOT_FOUND"}} 2001' in counted
    assert f'{count}{{model_name="real",status="OK"}} 1' in counted
    assert f'{count}{{model_name="real",status="INVALID_ARGUMENT"}} 1' in counted
    assert max(map(len, page)) < 1000


def test_names_that_are_not_utf8_do_not_break_the_page() -> None:
    metrics = Metrics()
    for name in ("\udcff", "\udcfe", "a\nb\r\0"):
        metrics.request(name, Code.NOT_FOUND)
    page = metrics.page().decode()
    assert ':tensorflow:serving:request_count{model_name="?",status="NOT_FOUND"} 2' in page
    assert '{model_name="a\\nb' in page
