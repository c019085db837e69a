"""The REST API of the fake server."""

import base64
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from shortlist.clients.testing.model import FakeModel, Refusal, Specs

if TYPE_CHECKING:
    from shortlist.clients.testing.server import FakeServer

__all__ = ["rest_handler"]

_HTTP_STATUSES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def rest_handler(server: "FakeServer") -> type[BaseHTTPRequestHandler]:
    """Return the request handler of a server."""
    return type("Handler", (_Handler,), {"fake": server})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: "FakeServer"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(json.loads(self.rfile.read(length)))

    def _answer(self, body: Any) -> None:
        try:
            status, reply = 200, self._reply(body)
        except Refusal as refusal:
            code = refusal.code
            status = int(code) if code.isdigit() else _HTTP_STATUSES.get(code, 500)
            reply = {"error": refusal.text}
        content = json.dumps(reply, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _reply(self, body: Any) -> Any:
        path, _, verb = self.path.partition(":")
        name, *which = [unquote(part) for part in path.split("/")[3:]]
        version = int(which[1]) if which[:1] == ["versions"] else None
        label = which[1] if which[:1] == ["labels"] else None
        headers = {key.lower(): value for key, value in self.headers.items()}
        if verb == "predict":
            return self._predict(name, version, label, body, headers)
        if verb in ("classify", "regress"):
            with self.fake.receive(verb, name, headers):
                model, _ = self.fake.find(name, version, label)
                run = model.classify if verb == "classify" else model.regress
                results: list[Any] = [run(_without_b64(features)) for features in body["examples"]]
                return {"results": results}
        if which[-1:] == ["metadata"]:
            with self.fake.receive("metadata", name, headers):
                model, version = self.fake.find(name, version, label)
                return _metadata(name, model, version)
        with self.fake.receive("status", name, headers):
            return {
                "model_version_status": [
                    {
                        "version": str(number),
                        "state": state.name,
                        "status": {
                            "error_code": "INTERNAL" if error else "OK",
                            "error_message": error,
                        },
                    }
                    for number, state, error in self.fake.status(name, version)
                ]
            }

    def _predict(
        self,
        name: str,
        version: int | None,
        label: str | None,
        body: Any,
        headers: Mapping[str, str],
    ) -> Any:
        signature = body.get("signature_name", "serving_default")
        inputs = {key: _without_b64(value) for key, value in body["inputs"].items()}
        with self.fake.receive("predict", name, headers, signature=signature, inputs=inputs):
            model, version = self.fake.find(name, version, label)
            text = f'Serving signature name: "{signature}" not found in signature def'
            missing = Refusal("INVALID_ARGUMENT", text)
            outputs = model.run(signature, inputs, version, missing=missing)
        columns = {
            key: _b64(value) if key.endswith("_bytes") else value for key, value in outputs.items()
        }
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}


def _without_b64(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return base64.b64decode(value["b64"])
        return {key: _without_b64(item) for key, item in value.items()}
    return [_without_b64(item) for item in value] if isinstance(value, list) else value


def _b64(value: Any) -> Any:
    if isinstance(value, list):
        return [_b64(item) for item in value]
    content = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(content).decode()}


def _metadata(name: str, model: FakeModel, version: int) -> Any:
    def side(specs: Specs) -> Any:
        return {
            key: {
                "dtype": dtype,
                "name": f"{key}:0",
                "tensor_shape": {
                    "dim": [{"size": str(size), "name": ""} for size in shape],
                    "unknown_rank": False,
                },
            }
            for key, (dtype, shape) in specs.items()
        }

    signatures = {
        key: {
            "inputs": side(signature.inputs),
            "outputs": side(signature.outputs),
            "method_name": "tensorflow/serving/predict",
        }
        for key, signature in model.signatures.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": str(version)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }
