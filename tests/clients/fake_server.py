"""A server that speaks TensorFlow Serving's REST and gRPC about a toy retrieval model.

Answers with the genuine server's texts and forms (typed fields over gRPC, column form
over REST), counts what it gets, and fails on request.
"""

import json
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import grpc

from clients import contract
from clients.codec import from_tensor_proto
from clients.wire import messages, methods

TOP_K = 10
CANDIDATES = [f"c{i:02d}" for i in range(25)] + ["Amélie (2001)", "七人の侍"]
GENRES = {name: "even" if i % 2 == 0 else "odd" for i, name in enumerate(CANDIDATES)}
YEARS = {name: 1990 + i for i, name in enumerate(CANDIDATES)}
STRANGER = "stranger"
SEEN = {"42": ["c00", "c01"]}

HTTP_BY_CODE = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def float32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def score(query: str, candidate: str) -> float:
    return float32(zlib.crc32(f"{query}/{candidate}".encode()) / 2**32)


def ranking(query: str, allowed: list[str] | None = None) -> list[tuple[str, float]]:
    """The right answer: all allowed candidates, best first."""
    names = CANDIDATES if allowed is None else allowed
    return sorted(((name, score(query, name)) for name in names), key=lambda pair: -pair[1])


class Refusal(Exception):  # noqa: N818
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


SIGNATURES: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = {
    "serving_default": {
        "inputs": {"user_id": ("DT_STRING", [-1])},
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, TOP_K]),
            "scores": ("DT_FLOAT", [-1, TOP_K]),
            "known_user": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "retrieve": {
        "inputs": {
            "user_id": ("DT_STRING", [-1]),
            "k": ("DT_INT32", []),
            "exclude": ("DT_STRING", [-1, -1]),
            "exclude_seen": ("DT_BOOL", []),
            "filter_any": ("DT_STRING", [-1]),
            "filter_all": ("DT_STRING", [-1]),
            "filter_min": ("DT_STRING", [-1]),
            "filter_max": ("DT_STRING", [-1]),
        },
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, -1]),
            "scores": ("DT_FLOAT", [-1, -1]),
            "known_user": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "similar": {
        "inputs": {"candidate_id": ("DT_STRING", [-1]), "k": ("DT_INT32", [])},
        "outputs": {
            "candidate_ids": ("DT_STRING", [-1, -1]),
            "scores": ("DT_FLOAT", [-1, -1]),
            "known_candidate": ("DT_BOOL", [-1]),
            "servable_version": ("DT_INT64", [-1]),
        },
    },
    "embed": {
        "inputs": {"user_id": ("DT_STRING", [-1])},
        "outputs": {"query_embedding": ("DT_FLOAT", [-1, 3])},
    },
    "rate": {
        "inputs": {"user_id": ("DT_STRING", [-1]), "candidate_id": ("DT_STRING", [-1])},
        "outputs": {"rating": ("DT_FLOAT", [-1])},
    },
    "echo": {
        "inputs": {
            "x": ("DT_FLOAT", [-1, 2]),
            "n": ("DT_INT64", []),
            "flags": ("DT_BOOL", [-1]),
            "blob_bytes": ("DT_STRING", [-1]),
        },
        "outputs": {
            "x": ("DT_FLOAT", [-1, 2]),
            "n": ("DT_INT64", []),
            "flags": ("DT_BOOL", [-1]),
            "blob_bytes": ("DT_STRING", [-1]),
        },
    },
    "half_plus_two": {
        "inputs": {"x": ("DT_FLOAT", [-1])},
        "outputs": {"y": ("DT_FLOAT", [-1])},
    },
}


@dataclass
class Servable:
    states: dict[int, tuple[str, str]] = field(default_factory=lambda: {1: ("AVAILABLE", "")})
    labels: dict[str, int] = field(default_factory=dict)
    signatures: dict[str, Any] = field(default_factory=lambda: dict(SIGNATURES))

    def resolve(self, name: str, version: int | None, label: str | None) -> int:
        available = [v for v, (state, _) in self.states.items() if state == "AVAILABLE"]
        if label is not None:
            if label not in self.labels:
                raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        if version is None and available:
            return max(available)
        if version not in available:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {wanted}")
        assert version is not None
        return version


Values = Mapping[str, Any]


class Backend:
    """The models, what was asked of them, and the failures to come."""

    def __init__(self) -> None:
        self.servables: dict[str, Servable] = {
            contract.servable_name("retrieval", index): Servable(
                states={1: ("AVAILABLE", ""), 2: ("AVAILABLE", "")},
                labels={"stable": 1, "canary": 2},
            )
            for index in ("brute_force", "ivf")
        }
        # Some servables fix the k of `similar` at export.
        self.servables["retrieval_ivf"].signatures["similar"] = {
            **SIGNATURES["similar"],
            "inputs": {"candidate_id": ("DT_STRING", [-1])},
        }
        self.faults: deque[tuple[str, str]] = deque()  # (code or HTTP status, text)
        self.calls: list[tuple[str, str, int]] = []  # operation, signature or model, batch
        self.headers: list[dict[str, str]] = []
        self.configs: list[messages.ModelServerConfig] = []
        self.delay = 0.0
        self.busy = threading.Semaphore(64)
        self.lock = threading.Lock()
        self.active = 0
        self.most_active = 0
        self.release = threading.Event()
        self.release.set()

    @contextmanager
    def entered(
        self, operation: str, what: str, batch: int, headers: dict[str, str]
    ) -> Iterator[None]:
        with self.lock:
            self.calls.append((operation, what, batch))
            self.headers.append(headers)
            self.active += 1
            self.most_active = max(self.active, self.most_active)
            fault = self.faults.popleft() if self.faults else None
        try:
            self.release.wait(10)
            if fault is not None:
                raise Refusal(*fault)
            yield
        finally:
            with self.lock:
                self.active -= 1

    def servable(self, name: str) -> Servable:
        found = self.servables.get(name)
        if found is None:
            raise Refusal("NOT_FOUND", f"Servable not found for request: Latest({name})")
        return found

    def status(self, name: str, version: int | None) -> list[tuple[int, str, str]]:
        found = self.servables.get(name)
        if found is None or not found.states:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in found.states:
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {name}")
        return [
            (number, state, error)
            for number, (state, error) in sorted(found.states.items(), reverse=True)
            if version in (None, number)
        ]

    def predict(self, signature: str, inputs: Values, version: int) -> dict[str, tuple[str, Any]]:
        """Outputs as (dtype, nested lists) by name."""
        if signature in ("serving_default", "retrieve"):
            return self._retrieve(signature, inputs, version)
        if signature == "similar":
            rows = [
                [pair for pair in ranking(one) if pair[0] != one][: inputs.get("k", TOP_K)]
                for one in inputs["candidate_id"]
            ]
            known = [one in CANDIDATES for one in inputs["candidate_id"]]
            return {**self._rows(rows, version), "known_candidate": ("DT_BOOL", known)}
        if signature == "embed":
            vectors = [[score(one, str(i)) for i in range(3)] for one in inputs["user_id"]]
            return {"query_embedding": ("DT_FLOAT", vectors)}
        if signature == "rate":
            pairs = zip(inputs["user_id"], inputs["candidate_id"], strict=True)
            return {"rating": ("DT_FLOAT", [score(*pair) for pair in pairs])}
        if signature == "half_plus_two":
            return {"y": ("DT_FLOAT", [value / 2 + 2 for value in inputs["x"]])}
        outputs = SIGNATURES[signature]["outputs"]
        echoed = dict(inputs)
        if "x" in echoed:  # JSON's whole numbers are floats by now
            echoed["x"] = [[float(value) for value in row] for row in echoed["x"]]
        return {name: (outputs[name][0], value) for name, value in echoed.items()}

    def _retrieve(self, signature: str, inputs: Values, version: int) -> dict[str, tuple[str, Any]]:
        k = int(inputs.get("k", TOP_K))
        rows = []
        for index, user in enumerate(inputs["user_id"]):
            allowed = [name for name in CANDIDATES if _passes(name, inputs)]
            gone = set(inputs["exclude"][index]) if "exclude" in inputs else set()
            if inputs.get("exclude_seen"):
                gone |= set(SEEN.get(user, []))
            best = ranking(user, [name for name in allowed if name not in gone])[:k]
            rows.append(best + [("", float("-inf"))] * (min(k, len(CANDIDATES)) - len(best)))
        known = [user != STRANGER for user in inputs["user_id"]]
        return {**self._rows(rows, version), "known_user": ("DT_BOOL", known)}

    def _rows(self, rows: list[list[tuple[str, float]]], version: int) -> dict[str, Any]:
        return {
            "candidate_ids": ("DT_STRING", [[name for name, _ in row] for row in rows]),
            "scores": ("DT_FLOAT", [[value for _, value in row] for row in rows]),
            "servable_version": ("DT_INT64", [version] * len(rows)),
        }


def _passes(name: str, inputs: Values) -> bool:
    facts = {f"genre={GENRES[name]}", f"year={YEARS[name]}"}
    any_of, all_of = inputs.get("filter_any", []), inputs.get("filter_all", [])
    if any_of and not facts & set(any_of):
        return False
    if not set(all_of) <= facts:
        return False
    for bound in inputs.get("filter_min", []):
        if YEARS[name] < float(bound.removeprefix("year=")):
            return False
    return all(
        YEARS[name] <= float(bound.removeprefix("year=")) for bound in inputs.get("filter_max", [])
    )


def check_inputs(servable: Servable, signature: str, names: set[str], rest: bool) -> None:
    found = servable.signatures.get(signature)
    if found is None:
        if rest:
            text = f'Serving signature name: "{signature}" not found in signature def'
            raise Refusal("INVALID_ARGUMENT", text)
        raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
    wanted = set(found["inputs"])
    if names != wanted:
        raise Refusal(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(names)}!={len(wanted)} "
            f"Sent extra: {{{','.join(sorted(names - wanted))}}}. "
            f"Missing but required: {{{','.join(sorted(wanted - names))}}}.",
        )


# --- gRPC --------------------------------------------------------------------------

CODES = {code.name: code for code in grpc.StatusCode}


def typed_tensor(dtype: str, value: Any) -> messages.TensorProto:
    """As the genuine server does by default: values in the typed field."""
    tensor = messages.TensorProto(dtype=dtype)
    flat: Any = value
    if not isinstance(value, list):
        flat = [value]
    else:
        while True:
            tensor.tensor_shape.dim.add(size=len(flat) if not tensor.tensor_shape.dim else 0)
            if flat and isinstance(flat[0], list):
                width = len(flat[0])
                flat = [item for row in flat for item in row]
                tensor.tensor_shape.dim.add(size=width)
            break
    if dtype == "DT_STRING":
        tensor.string_val.extend([v.encode() if isinstance(v, str) else v for v in flat])
    else:
        fields: dict[str, Any] = {
            "DT_FLOAT": tensor.float_val,
            "DT_INT64": tensor.int64_val,
            "DT_BOOL": tensor.bool_val,
        }
        fields[dtype].extend(flat)
    return tensor


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


class GrpcSide(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def service(self, details: Any) -> Any:
        for method in methods.METHODS:
            if method.path == details.method:
                run = getattr(self, f"_{method.name.lower()}", None)
                if run is not None:
                    return grpc.unary_unary_rpc_method_handler(
                        self._guarded(run),
                        request_deserializer=method.request.FromString,
                        response_serializer=method.response.SerializeToString,
                    )
        return None

    def _guarded(self, run: Any) -> Any:
        def handle(request: Any, context: Any) -> Any:
            headers = {key: str(value) for key, value in context.invocation_metadata()}
            try:
                return run(request, headers)
            except Refusal as refusal:
                context.abort(CODES[refusal.code], refusal.text)

        return handle

    def _spec(self, spec: Any) -> tuple[str, int | None, str | None]:
        choice = spec.WhichOneof("version_choice")
        return (
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    def _predict(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, label = self._spec(request.model_spec)
        signature = request.model_spec.signature_name or "serving_default"
        inputs = {
            key: value if key.endswith("_bytes") else _decoded(value)
            for key, proto in request.inputs.items()
            for value in [from_tensor_proto(proto)]
        }
        batch = max(len(value) for value in inputs.values() if isinstance(value, list))
        with self.backend.entered("predict", signature, batch, headers):
            servable = self.backend.servable(name) if label is None else self._labelled(name, label)
            chosen = servable.resolve(name, version, label)
            check_inputs(servable, signature, set(inputs), rest=False)
            response = messages.PredictResponse()
            response.model_spec.name = name
            response.model_spec.version.value = chosen
            response.model_spec.signature_name = signature
            for key, (dtype, value) in self.backend.predict(signature, inputs, chosen).items():
                if not request.output_filter or key in request.output_filter:
                    response.outputs[key].CopyFrom(typed_tensor(dtype, value))
            return response

    def _labelled(self, name: str, label: str) -> Servable:
        # The genuine server looks the label up first, so an unknown model with a label
        # is an unknown label.
        if name not in self.backend.servables:
            raise Refusal("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self.backend.servables[name]

    def _classify(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("classify", request.model_spec.name, 0, headers):
            response = messages.ClassificationResponse()
            for x in _example_values(request.input):
                row = response.result.classifications.add()
                row.classes.add(label="low", score=0.25)
                row.classes.add(label="high", score=float32(x))
            return response

    def _regress(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("regress", request.model_spec.name, 0, headers):
            response = messages.RegressionResponse()
            for x in _example_values(request.input):
                response.result.regressions.add(value=x / 2 + 2)
            return response

    def _getmodelstatus(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, _ = self._spec(request.model_spec)
        with self.backend.entered("status", name, 0, headers):
            response = messages.GetModelStatusResponse()
            for number, state, error in self.backend.status(name, version):
                entry = response.model_version_status.add(version=number, state=state)
                entry.status.SetInParent()
                if error:
                    entry.status.error_code = messages.Code.INTERNAL
                    entry.status.error_message = error
            return response

    def _getmodelmetadata(self, request: Any, headers: dict[str, str]) -> Any:
        name, version, label = self._spec(request.model_spec)
        with self.backend.entered("metadata", name, 0, headers):
            servable = self.backend.servable(name) if label is None else self._labelled(name, label)
            chosen = servable.resolve(name, version, label)
            response = messages.GetModelMetadataResponse()
            response.model_spec.name = name
            response.model_spec.version.value = chosen
            packed = response.metadata["signature_def"]
            packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
            packed.value = signature_map(servable).SerializeToString()
            return response

    def _handlereloadconfigrequest(self, request: Any, headers: dict[str, str]) -> Any:
        with self.backend.entered("reload_config", "", 0, headers):
            self.backend.configs.append(request.config)
            response = messages.ReloadConfigResponse()
            names = [config.name for config in request.config.model_config_list.config]
            if len(set(names)) != len(names):
                response.status.error_code = messages.Code.INVALID_ARGUMENT
                response.status.error_message = "Illegal to list model twice in config list"
            return response


def _example_values(request: Any) -> list[float]:
    kind = getattr(request, request.WhichOneof("kind"))
    return [one.features.feature["x"].float_list.value[0] for one in kind.examples]


def signature_map(servable: Servable) -> messages.SignatureDefMap:
    found = messages.SignatureDefMap()
    for name, signature in servable.signatures.items():
        entry = found.signature_def[name]
        entry.method_name = "tensorflow/serving/predict"
        for side in ("inputs", "outputs"):
            for key, (dtype, shape) in signature[side].items():
                info = getattr(entry, side)[key]
                info.name = f"{key}:0"
                info.dtype = messages.DataType.Value(dtype)
                for size in shape:
                    info.tensor_shape.dim.add(size=size)
                info.tensor_shape.SetInParent()
    return found


# --- REST --------------------------------------------------------------------------


def _unb64(value: Any) -> Any:
    import base64

    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    if isinstance(value, list):
        return [_unb64(item) for item in value]
    return value


def _b64(value: Any) -> Any:
    import base64

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


@dataclass
class FakeServer:
    backend: Backend
    grpc_port: int
    rest_port: int

    def address(self, transport: str) -> str:
        port = self.rest_port if transport == "rest" else self.grpc_port
        return f"127.0.0.1:{port}"


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of many tests


@contextmanager
def running(grpc_credentials: Any = None, ports: tuple[int, int] = (0, 0)) -> Iterator[FakeServer]:
    """Both servers over one backend, on free ports of the loopback."""
    backend = Backend()
    pool = ThreadPoolExecutor(16)
    server = grpc.server(
        pool,
        handlers=[GrpcSide(backend)],
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    if grpc_credentials is None:
        grpc_port = server.add_insecure_port(f"127.0.0.1:{ports[0]}")
    else:
        grpc_port = server.add_secure_port(f"127.0.0.1:{ports[0]}", grpc_credentials)
    server.start()
    handler = type("Handler", (RestSide,), {"backend": backend})
    rest = _Http(("127.0.0.1", ports[1]), handler)
    thread = threading.Thread(
        target=rest.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield FakeServer(backend, grpc_port, rest.server_address[1])
    finally:
        backend.release.set()
        rest.shutdown()
        rest.server_close()
        thread.join(5)
        server.stop(0).wait(5)
        pool.shutdown(wait=False)
