"""Health, readiness and the description of the REST API, without TensorFlow."""

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from shortlist.clients.types import State
from shortlist.clients.wire import messages
from shortlist.serving.embedded.api.interfaces import ServableState
from shortlist.serving.embedded.api.metrics import Metrics
from shortlist.serving.embedded.api.request_log import RequestLogs
from shortlist.serving.embedded.rest.handler import RestHandler, RestOptions, start_rest
from shortlist.serving.embedded.rest.http.connection import HttpRequest, HttpResponse
from tests.support.chromium import browser
from tests.unit.serving.embedded.doubling import Doubling
from tests.unit.serving.embedded.static_source import StaticSource

OWN_PATHS = ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js",
             "/docs/icon.svg")  # fmt: skip
AXE = files("axe_core_python") / "axe.min.js"


class Retrieving(Doubling):
    """Also has a signature with scalars, defaults and an open batch."""

    def __init__(self) -> None:
        super().__init__()
        definition = messages.SignatureDef(method_name="tensorflow/serving/predict")
        for name, dtype, shape in (
            ("user_id", messages.DataType.DT_STRING, [-1]),
            ("age", messages.DataType.DT_FLOAT, [-1, 2]),
            ("k", messages.DataType.DT_INT32, []),
        ):
            definition.inputs[name].dtype = dtype
            for size in shape:
                definition.inputs[name].tensor_shape.dim.add(size=size)
        definition.defaults["k"].dtype = messages.DataType.DT_INT32
        definition.defaults["k"].int_val.append(7)
        definition.outputs["y"].CopyFrom(definition.inputs["age"])
        self.signatures |= {"retrieve": definition, "__init": messages.SignatureDef()}

    def run(self, signature_name: str, inputs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if signature_name == "retrieve":
            assert inputs["user_id"].tolist() == [b"\xc3\xa9va"]
            return {"y": inputs["age"]}
        return super().run(signature_name, inputs, *args, **kwargs)


def sample() -> messages.PredictRequest:
    request = messages.PredictRequest()
    for name, dtype, shape in (
        ("user_id", messages.DataType.DT_STRING, [1]),
        ("age", messages.DataType.DT_FLOAT, [1, 2]),
        ("k", messages.DataType.DT_INT32, []),
    ):
        request.inputs[name].dtype = dtype
        for size in shape:
            request.inputs[name].tensor_shape.dim.add(size=size)
    request.inputs["user_id"].string_val.append("éva".encode())
    request.inputs["age"].float_val.append(0.1)
    request.inputs["k"].int_val.append(3)
    return request


class Source(StaticSource):
    """Counts in `made` how often a servable is looked at."""

    made = 0

    def acquire(self, name: str, **which: Any) -> Any:
        self.made += 1
        return super().acquire(name, **which)


def source() -> Source:
    return Source({"a model": {1: Retrieving(), 2: Retrieving()}}, {"a model": {"stable": 1}})


def handler(source: StaticSource, **options: Any) -> RestHandler:
    return RestHandler(source, RestOptions(**options), Metrics(), RequestLogs())


def ask(to: RestHandler, target: str, body: bytes = b"", method: str | None = None) -> HttpResponse:
    request = HttpRequest(
        method=(method or ("POST" if body else "GET")).encode(),
        target=target.encode(),
        headers={},
        body=body,
        keep_alive=True,
    )
    return to(request)


def test_every_example_is_answered_in_every_form_of_the_path() -> None:
    to = handler(source(), samples=lambda servable: {"retrieve": sample()})
    described = json.loads(ask(to, "/openapi.json").body)
    predicts = {path: item["post"] for path, item in described["paths"].items() if "post" in item}
    assert set(predicts) == {
        "/v1/models/a%20model:predict",
        "/v1/models/a%20model/versions/{version}:predict",
        "/v1/models/a%20model/labels/{label}:predict",
    }
    for path, operation in predicts.items():
        filled = path
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"]["enum"] in (["2", "1"], ["stable"])
            filled = filled.replace(f"{{{parameter['name']}}}", parameter["example"])
        body = referred(described, operation["requestBody"])["content"]["application/json"]
        assert list(body["examples"]) == ["serving_default", "retrieve"]
        for example in body["examples"].values():
            answer = ask(to, filled, json.dumps(example["value"]).encode())
            assert answer.status == 200, answer.body
    retrieve = body["examples"]["retrieve"]["value"]
    assert retrieve["inputs"] == {"age": [[0.1, 0.1]], "k": 3, "user_id": ["éva"]}


def referred(described: dict[str, Any], part: dict[str, Any]) -> Any:
    found: Any = described
    for key in part["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found


def test_schemas_are_those_of_the_signature() -> None:
    described = json.loads(ask(handler(source()), "/openapi.json").body)
    body = described["components"]["requestBodies"]["a_model"]["content"]["application/json"]
    schemas = {schema["title"]: schema for schema in body["schema"]["oneOf"]}
    assert list(schemas) == ["serving_default, columns", "retrieve, columns"]  # no rows: scalars
    inputs = schemas["retrieve, columns"]["properties"]["inputs"]
    assert inputs["required"] == ["age", "k", "user_id"]
    assert inputs["properties"]["k"] == {
        "description": "DT_INT32 scalar", "type": "integer", "format": "int32", "default": 7
    }  # fmt: skip
    age = inputs["properties"]["age"]
    assert age["description"] == "DT_FLOAT [?, 2]"
    assert age["items"]["minItems"] == 2
    # Without a request that was answered, values of the right types.
    example = body["examples"]["retrieve"]["value"]["inputs"]
    assert example == {"age": [[1.0, 1.0]], "k": 10, "user_id": ["42"]}


def test_description_is_made_again_when_versions_change() -> None:
    served = source()
    to = handler(served)
    first = ask(to, "/openapi.json").body
    assert ask(to, "/openapi.json").body == first
    assert served.made == 1
    served.servables = {"a model": {3: Doubling()}}
    assert b'"3"' in ask(to, "/openapi.json").body


def test_ready_when_every_configured_model_is_available() -> None:
    class Loading(StaticSource):
        def statuses(self, name: str, *, version: int | None = None) -> list[ServableState]:
            if name == "n":
                return [ServableState(version=1, state=State.LOADING)]
            return super().statuses(name)

    answer = ask(handler(StaticSource({"m": {1: Doubling()}})), "/readyz")
    assert (answer.status, json.loads(answer.body)["unavailable"]) == (200, [])
    to = handler(Loading({"m": {1: Doubling()}, "n": {1: Doubling()}, "unseen": {}}))
    answer = ask(to, "/readyz")
    assert answer.status == 503
    assert json.loads(answer.body) == {"ready": False, "unavailable": ["n", "unseen"]}
    assert ask(to, "/healthz").status == 200
    assert ask(to, "/openapi.json").status == 200


def test_own_paths_are_read_only_and_give_way_to_the_metrics_page() -> None:
    to = handler(source())
    for path in OWN_PATHS:
        assert ask(to, path, method="HEAD").status == 200
        assert ask(to, path, b"{}").status == 404
    for path in ("/docs/", "//docs", "/docs/../openapi.json"):
        assert ask(to, path).status == 404
    assert ask(handler(source(), metrics_path="/docs"), "/docs").body.startswith(b"#")


def test_description_can_be_off() -> None:
    to = handler(source(), docs=False)
    answered = [path for path in OWN_PATHS if ask(to, path).status == 200]
    assert answered == ["/healthz", "/readyz"]


@pytest.mark.slow
def test_page_sends_examples_and_is_accessible(tmp_path: Path) -> None:
    server = start_rest(source(), host="127.0.0.1", port=0)
    try:
        with browser(tmp_path) as chromium:
            for width, scheme in ((390, "dark"), (1200, "light")):
                page = chromium.open(
                    f"http://127.0.0.1:{server.port}/docs", width=width, scheme=scheme
                )
                state = "document.querySelector('details[open] [role=status]')?.textContent"
                wait_for(page, f"{state} === ''")
                page.evaluate("document.querySelector('details[open] .send').click()")
                wait_for(page, f"{state}.startsWith('HTTP 200')")
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert all(f":{server.port}/" in address for address in page.requests())
                assert page.complaints() == []
                page.evaluate(f"{AXE.read_text()}; axe.run().then(r => window.found = r); 0")
                wait_for(page, "window.found !== undefined")
                found = page.evaluate("JSON.stringify(window.found.violations.map(v => v.id))")
                assert json.loads(found) == []
    finally:
        server.stop(0)


def wait_for(page: Any, condition: str) -> None:
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
