"""The REST side of the fake server."""

import base64
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from tests.unit.clients.fake_model import (
    HTTP_BY_CODE,
    Backend,
    Refusal,
    Servable,
    check_inputs,
    float32,
)


def _unb64(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    if isinstance(value, list):
        return [_unb64(item) for item in value]
    return value


def _b64(value: Any) -> Any:
    if isinstance(value, list):
        return [_b64(item) for item in value]
    raw = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(raw).decode()}


class RestSide(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    backend: Backend

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
            if refusal.code.isdigit():
                status = int(refusal.code)
            else:
                status = HTTP_BY_CODE.get(refusal.code, 500)
            reply = {"error": refusal.text}
        raw = json.dumps(reply, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _reply(self, body: Any) -> Any:
        path, _, verb = self.path.partition(":")
        parts = [unquote(part) for part in path.split("/")[3:]]
        name = parts[0]
        version = int(parts[2]) if parts[1:2] == ["versions"] else None
        label = parts[2] if parts[1:2] == ["labels"] else None
        headers = {key.lower(): value for key, value in self.headers.items()}
        if verb == "predict":
            return self._predict(name, version, label, body, headers)
        if verb in ("classify", "regress"):
            with self.backend.entered(verb, name, 0, headers):
                values = [one["x"] for one in body["examples"]]
                if verb == "classify":
                    return {"results": [[["low", 0.25], ["high", float32(x)]] for x in values]}
                return {"results": [x / 2 + 2 for x in values]}
        if parts[-1] == "metadata" and len(parts) in (2, 4):
            return self._metadata(name, version, label, headers)
        with self.backend.entered("status", name, 0, headers):
            return {
                "model_version_status": [
                    {
                        "version": str(number),
                        "state": state,
                        "status": {
                            "error_code": "INTERNAL" if error else "OK",
                            "error_message": error,
                        },
                    }
                    for number, state, error in self.backend.status(name, version)
                ]
            }

    def _find(self, name: str, label: str | None) -> Servable:
        if label is not None and name not in self.backend.servables:
            raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self.backend.servable(name)

    def _predict(
        self, name: str, version: int | None, label: str | None, body: Any, headers: dict[str, str]
    ) -> Any:
        signature = body.get("signature_name", "serving_default")
        inputs = {key: _unb64(value) for key, value in body["inputs"].items()}
        batch = max(len(value) for value in inputs.values() if isinstance(value, list))
        with self.backend.entered("predict", signature, batch, headers):
            servable = self._find(name, label)
            chosen = servable.resolve(name, version, label)
            check_inputs(servable, signature, set(inputs), rest=True)
            found = self.backend.predict(signature, inputs, chosen)
        outputs = {
            key: _b64(value) if key.endswith("_bytes") else value
            for key, (_, value) in found.items()
        }
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}

    def _metadata(
        self, name: str, version: int | None, label: str | None, headers: dict[str, str]
    ) -> Any:
        with self.backend.entered("metadata", name, 0, headers):
            servable = self._find(name, label)
            chosen = servable.resolve(name, version, label)

        def side(specs: Any) -> Any:
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
                "inputs": side(one["inputs"]),
                "outputs": side(one["outputs"]),
                "method_name": "tensorflow/serving/predict",
            }
            for key, one in servable.signatures.items()
        }
        return {
            "model_spec": {"name": name, "signature_name": "", "version": str(chosen)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }
