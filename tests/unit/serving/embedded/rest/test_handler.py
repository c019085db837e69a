"""Paths, status codes and headers of the REST API, without TensorFlow."""

import gzip
import json
import time
import tracemalloc
from typing import Any

import pytest

from shortlist.serving.embedded.api.errors import Code, StatusError
from shortlist.serving.embedded.api.inference import InferenceOptions
from shortlist.serving.embedded.api.limits import MemoryRoom, RequestLimits
from shortlist.serving.embedded.api.metrics import DEFAULT_PATH, Metrics
from shortlist.serving.embedded.api.request_log import RequestLogs
from shortlist.serving.embedded.rest.handler import (
    RestHandler,
    RestOptions,
    _parse_cached,
    start_rest,
)
from shortlist.serving.embedded.rest.http.connection import HttpRequest, HttpResponse
from tests.unit.serving.embedded.doubling import Doubling
from tests.unit.serving.embedded.static_source import StaticSource

PREDICT = "/v1/models/m:predict"
LIMITS = RequestLimits(max_values=500_000)


def handler(servable: Any = None, **options: Any) -> RestHandler:
    source = StaticSource({"m": {1: servable or Doubling()}}, {"m": {"stable": 1}})
    return RestHandler(source, RestOptions(**options), Metrics(), RequestLogs())


def ask(
    to: RestHandler, target: str, body: bytes = b"", method: str = "POST", **headers: str
) -> HttpResponse:
    names = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return to(
        HttpRequest(
            method=method.encode(),
            target=target.encode(),
            headers=names,
            body=body,
            keep_alive=True,
        )
    )


def error(response: HttpResponse) -> str:
    text: str = json.loads(response.body)["error"]
    return text


@pytest.mark.parametrize(
    "path", [PREDICT, "/v1/models/m/versions/1:predict", "/v1/models/m/labels/stable:predict",
             "/V1/Models/m:predict", "/v1/models/%6d:predict", "http://host:1/v1/models/m:predict"]
)  # fmt: skip
def test_servable_is_found_by_every_form_of_its_path(path: str) -> None:
    response = ask(handler(), path, b'{"instances": [1, 2]}')
    assert response.status == 200
    assert json.loads(response.body) == {"predictions": [2.0, 4.0]}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/v1/models/m:PREDICT", 400),
        ("POST", "/v1/models/m:predict?x=1", 400),
        ("POST", "/v1/models/m/versions/x:predict", 400),
        ("PUT", PREDICT, 400),
        ("POST", "/v2/models/m:predict", 404),
        ("POST", "/v1/models/m%zz:predict", 400),
        ("POST", "/v1/models/m{}:predict", 400),
        ("TRACE", "/v1/models/m", 501),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/m/versions/7", 404),
        ("POST", "/v1/models/m/labels/other:predict", 400),
        ("GET", "/v1/models", 400),
    ],
)
def test_other_paths_and_methods_are_refused(method: str, target: str, status: int) -> None:
    assert ask(handler(), target, b'{"instances": [1]}', method).status == status


@pytest.mark.parametrize("version", [str(2**63), "9" * 5_000, "0" * 60_000])
def test_version_beyond_64_bits_is_refused_without_a_body(version: str) -> None:
    for method, end in (("POST", ":predict"), ("GET", ""), ("GET", "/metadata")):
        response = ask(handler(), f"/v1/models/m/versions/{version}{end}", b"{}", method)
        assert (response.status, response.body) == (400, b"")


@pytest.mark.parametrize(
    "target",
    [
        f"//{'a' * 60_000}/^",
        f"{'a' * 60_000}^",
        f"//{'a/' * 30_000}^",
        f"/v1/models/{'%41' * 20_000}^",
        f"http://{'a' * 60_000}?^",
    ],
)
def test_long_target_is_refused_at_once(target: str) -> None:
    """A pattern that backtracks takes minutes for these and stops all threads."""
    started = time.process_time()
    assert ask(handler(), target, method="GET").status == 400
    assert time.process_time() - started < 1.0


def test_cache_of_targets_stays_small() -> None:
    answer = handler()
    before = _parse_cached.cache_info().currsize
    for number in range(5):
        ask(answer, f"/v1/models/{'x' * 1_000}{number}", method="GET")
    assert _parse_cached.cache_info().currsize == before


def test_double_slash_does_not_lead_to_the_metrics() -> None:
    """A proxy that offers `/v1/models/` alone reads these as paths below it."""
    answer = handler(metrics_path=DEFAULT_PATH)
    for target in (
        f"//v1%2fmodels{DEFAULT_PATH}",
        f"//v1/models/..{DEFAULT_PATH}",
        "//v1/models/m",
    ):
        assert ask(answer, target, method="GET").status == 404


def test_errors_do_not_echo_a_megabyte() -> None:
    name = "x" * 1_000_000
    for body in (
        {"signature_name": name, "inputs": 1},
        {"inputs": name},
        {"instances": [{name: 1}]},
    ):
        response = ask(handler(), PREDICT, json.dumps(body).encode())
        assert response.status == 400
        assert len(response.body) < 10_000
    response = ask(handler(), f"/v1/models/{'x' * 60_000}", method="GET")
    assert (response.status, len(response.body) < 10_000) == (404, True)


def test_model_name_that_is_not_utf8_leaves_the_metrics_page_alive() -> None:
    answer = handler(metrics_path=DEFAULT_PATH)
    assert ask(answer, "/v1/models/%ff", method="GET").status == 404
    page = ask(answer, DEFAULT_PATH, method="GET")
    assert (page.status, b'model_name="?",status="NOT_FOUND"} 1' in page.body) == (200, True)


def test_body_is_parsed_before_the_model_is_looked_up() -> None:
    assert error(ask(handler(), "/v1/models/other:predict", b"x")).startswith("JSON Parse error")


def test_gzipped_body_is_unpacked() -> None:
    body = gzip.compress(b'{"instances": [1]}')
    for whole in (body, body + b"rest", body + body):
        assert ask(handler(), PREDICT, whole, content_encoding="gzip").status == 200
    long = gzip.compress(json.dumps({"instances": list(range(9_000))}).encode())
    answer = ask(handler(), PREDICT, long, content_encoding="gzip")
    assert len(json.loads(answer.body)["predictions"]) == 9_000
    for broken in (body[:-9], b"no gzip", b""):
        response = ask(handler(), PREDICT, broken, content_encoding="gzip")
        assert error(response) == "JSON Parse error: The document is empty"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (gzip.compress(b"x" * 200_000_000, 1), "--max_request_bytes"),
        (gzip.compress(b"[]," * 10_000_000), "takes 1 MiB plus 100 times the zipped size"),
        (gzip.compress(b"[]," * 300_000 + bytes(range(256)) * 500), "--max_request_values"),
    ],
    ids=["size", "ratio", "values"],
)
def test_gzip_bomb_is_refused(body: bytes, reason: str) -> None:
    options = InferenceOptions(room=MemoryRoom(200_000_000), limits=LIMITS)
    bounded = handler(inference=options)
    tracemalloc.start()
    response = ask(bounded, PREDICT, body, content_encoding="gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status == 429
    assert reason in error(response)
    assert peak < 150_000_000
    assert options.room.taken == 0


def test_unzipped_and_parsed_bodies_count_into_the_memory() -> None:
    options = InferenceOptions(room=MemoryRoom(3_000_000))
    bounded = handler(inference=options)
    values = json.dumps({"instances": list(range(40_000))}).encode()
    for body, encoding in ((values, "identity"), (gzip.compress(b" " * 1_000_000), "gzip")):
        options.room.need(2_000_000)
        response = ask(bounded, PREDICT, body, content_encoding=encoding)
        options.room.give(2_000_000)
        assert response.status == 429
        assert "memory for requests are in use (--request_memory_mb)" in error(response)
        assert options.room.taken == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [' + b"[]," * 700_000 + b"]}",
        b"[" * 1_100_000,
        b'{"a":' * 1_100_000,
        b'{"signature_name": ["' + rb"\n" * 1_100_000,
    ],
    ids=["lists", "nested_lists", "nested_objects", "escapes"],
)
def test_json_that_takes_long_to_parse_is_refused_before(body: bytes) -> None:
    options = InferenceOptions(limits=RequestLimits())
    for path in (PREDICT, "/v1/models/m:classify"):
        started = time.process_time()
        assert ask(handler(inference=options), path, body).status == 429
        assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("number", "status"),
    [("9" * 3_000_000, 400), ("0." + "0" * 3_000_000 + "1", 200), ("0." + "7" * 3_000_000, 200)],
)
def test_number_of_a_megabyte_is_parsed_at_once(number: str, status: int) -> None:
    body = f'{{"instances": [{number}, NaN]}}'.encode()
    started = time.process_time()
    assert ask(handler(), PREDICT, body).status == status
    assert time.process_time() - started < 0.5


def test_cors_headers_are_optional() -> None:
    names = [name for name, _ in ask(handler(cors=True), PREDICT).headers]
    assert "Access-Control-Allow-Origin" in names
    assert len(ask(handler(), PREDICT).headers) == 1
    preflight = ask(handler(cors=True), PREDICT, method="OPTIONS", origin="https://a.example")
    assert (preflight.status, preflight.body) == (200, b"")
    assert ask(handler(cors=True), PREDICT, method="OPTIONS").status == 400


def test_metrics_page_exists_if_configured() -> None:
    assert ask(handler(), DEFAULT_PATH, method="GET").status == 404
    with_page = handler(metrics_path=DEFAULT_PATH)
    ask(with_page, PREDICT, b'{"instances": [1]}')
    ask(with_page, PREDICT, b"x")
    page = ask(with_page, DEFAULT_PATH, method="GET").body.decode()
    assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1' in page
    assert ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1' in page
    odd = ask(with_page, DEFAULT_PATH + "?x=1", method="GET")
    assert (odd.status, odd.body) == (
        400,
        f"Unexpected path: {DEFAULT_PATH}?x=1. Should be {DEFAULT_PATH}".encode(),
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.OUT_OF_RANGE, 400),
        (Code.NOT_FOUND, 404),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
        (Code.INTERNAL, 500),
        (Code.DATA_LOSS, 500),
        (Code.UNKNOWN, 500),
    ],
)
def test_every_code_has_its_status(code: Code, status: int) -> None:
    class Failing(Doubling):
        def run(self, *args: Any, **options: Any) -> dict[str, Any]:
            raise StatusError(code, "said so")

    response = ask(handler(Failing()), PREDICT, b'{"instances": [1]}')
    assert (response.status, error(response)) == (status, "said so")


@pytest.mark.parametrize(("timeout", "limit"), [(2.5, 2.5), (0.0, None), (None, None)])
def test_time_limit_reaches_the_runtime(timeout: float | None, limit: float | None) -> None:
    servable = Doubling()
    ask(handler(servable, timeout=timeout), PREDICT, b'{"instances": [1]}')
    assert servable.timeouts == [limit]


def test_started_server_answers_on_its_port() -> None:
    import urllib.request

    source = StaticSource({"m": {1: Doubling(), 3: Doubling()}})
    server = start_rest(source, host="127.0.0.1", port=0)
    try:
        url = f"http://127.0.0.1:{server.port}/v1/models/m"
        with urllib.request.urlopen(url, timeout=10) as response:
            states = json.load(response)["model_version_status"]
        assert [state["version"] for state in states] == ["3", "1"]
    finally:
        server.stop(1.0)


@pytest.mark.parametrize("action", ["predict", "classify", "regress"])
def test_signature_name_that_is_not_utf8_is_refused_as_unknown(action: str) -> None:
    key = b"instances" if action == "predict" else b"examples"
    body = b'{"signature_name": "x\xef_y", "' + key + b'": [{"x": 1.0}]}'
    response = ask(handler(), f"/v1/models/m:{action}", body)
    assert response.status == 400
    assert b"x\xef_y" in response.body
