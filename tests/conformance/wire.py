"""The requests of recorded cases, sent over REST and gRPC, and the answers as they are recorded."""

import base64
import gzip
import http.client
import os
import socket
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

__all__ = [
    "GET_MODEL_STATUS",
    "METHODS",
    "Json",
    "Replace",
    "SignatureDefMap",
    "call_grpc",
    "call_http",
    "metrics_of",
    "model_states",
    "open_channel",
]

Json = dict[str, Any]
Replace = Callable[[str], str]

_HEADERS = (
    "content-type",
    "content-encoding",
    "allow",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
)
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_LONGEST_TEXT = 100_000  # bytes of a response that are also received as text


def _health_messages() -> tuple[Any, Any]:
    """Return request and response of `grpc.health.v1.Health/Check`, under a name of our own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="conformance_health.proto", package="conformance_health", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=field.TYPE_ENUM,
        label=field.LABEL_OPTIONAL,
        type_name=".conformance_health.HealthCheckResponse.ServingStatus",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def message(name: str) -> Any:
        return message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"conformance_health.{name}")
        )

    return message("HealthCheckRequest"), message("HealthCheckResponse")


_PREDICTION, _MODEL = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
GET_MODEL_STATUS = f"{_MODEL}/GetModelStatus"
SignatureDefMap: Any = get_model_metadata_pb2.SignatureDefMap
METHODS: dict[str, tuple[Any, Any]] = {
    f"{_PREDICTION}/Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    f"{_PREDICTION}/Classify": (
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    f"{_PREDICTION}/Regress": (
        regression_pb2.RegressionRequest,
        regression_pb2.RegressionResponse,
    ),
    f"{_PREDICTION}/MultiInference": (
        inference_pb2.MultiInferenceRequest,
        inference_pb2.MultiInferenceResponse,
    ),
    f"{_PREDICTION}/GetModelMetadata": (
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    GET_MODEL_STATUS: (
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
    f"{_MODEL}/HandleReloadConfigRequest": (
        model_management_pb2.ReloadConfigRequest,
        model_management_pb2.ReloadConfigResponse,
    ),
    "/grpc.health.v1.Health/Check": _health_messages(),
}


def open_channel(address: str) -> grpc.Channel:
    """Return a channel of its own connection, without retries or size limits."""
    return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)


def call_http(address: str, request: Json, *, fill: Replace, timeout: float = 60) -> Json:
    """Send one request over a new connection and return the answer as recorded.

    The headers are those of the case, plus `Host`, `Connection: close` and `Content-Length`.

    Args:
        address: `host:port`.
        request: Request of a case or step.
        fill: Replaces placeholders such as `${ROOT}` in path and body.
        timeout: Seconds for each operation on the socket.
    """
    body = _http_body(request, fill)
    headers = request.get("headers", {})
    lines = [
        f"{request['method']} {fill(request['path'])} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    if body is not None and not {"content-length", "transfer-encoding"} & set(
        map(str.lower, headers)
    ):
        lines.append(f"Content-Length: {len(body)}")
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout) as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
            response = http.client.HTTPResponse(connection, method=request["method"])
            response.begin()
            data = response.read()
    except (http.client.HTTPException, OSError, ValueError) as exc:
        return {"error": type(exc).__name__}
    received = {
        name: response.headers[name] for name in _HEADERS if response.headers[name] is not None
    }
    answer: Json = {"status": response.status, "headers": received}
    try:
        answer["body"] = data.decode()
    except UnicodeDecodeError:
        answer["body_b64"] = base64.b64encode(data).decode()
    return answer


def _http_body(request: Json, fill: Replace) -> bytes | None:
    if "body_b64" in request:
        return base64.b64decode(request["body_b64"])
    if "body_gen" in request:
        body = _generated(request["body_gen"]).encode()
    elif "body" in request:
        body = fill(request["body"]).encode()
    else:
        return None
    return gzip.compress(body, mtime=0) if request.get("body_gzip") else body


def _generated(parts: Json) -> str:
    text: str = parts.get("prefix", "") + parts["repeat"] * parts["count"] + parts.get("suffix", "")
    return text


def metrics_of(page: str) -> list[str]:
    """Return `name type` of each metric on a Prometheus page, sorted."""
    lines = (line.split() for line in page.splitlines() if line.startswith("# TYPE "))
    return sorted({" ".join(words[2:4]) for words in lines})


def call_grpc(channel: grpc.Channel, request: Json, *, fill: Replace, unfill: Replace) -> Json:
    """Make one call and return the answer as recorded.

    Args:
        channel: Connection to the server.
        request: Request of a case or step.
        fill: Replaces placeholders such as `${ROOT}` in the request.
        unfill: Puts placeholders back into the error's details.
    """
    method = request["method"]
    call: Any = channel.unary_unary(method)
    metadata = tuple((key, value) for key, value in request.get("metadata", []))
    try:
        data = call(
            _grpc_bytes(request, fill), timeout=request.get("timeout_s", 60), metadata=metadata
        )
    except grpc.RpcError as exc:
        return {"code": exc.code().name, "details": unfill(exc.details() or "")}
    answer = {"code": "OK", "details": "", "b64": base64.b64encode(data).decode()}
    if method in METHODS:
        message = METHODS[method][1].FromString(data)
        text = text_format.MessageToString(message, as_utf8=True)
        answer["text"] = text if len(data) <= _LONGEST_TEXT else f"{text[:200]}..."
    return answer


def _grpc_bytes(request: Json, fill: Replace) -> bytes:
    if "text" in request and ("b64" not in request or "${" in request["text"]):
        text = fill(request["text"])
    elif "gen" in request:
        text = _generated(request["gen"])
    else:
        return base64.b64decode(request["b64"])
    message = METHODS[request["method"]][0]()
    text_format.Parse(text, message)
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def model_states(channel: grpc.Channel, model: str, *, unfill: Replace) -> Json:
    """Return state and error of each version of a model, or the code of the failed call."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    call: Any = channel.unary_unary(GET_MODEL_STATUS)
    try:
        data = call(request.SerializeToString(), timeout=5)
    except grpc.RpcError as exc:
        return {"error": exc.code().name}
    response = get_model_status_pb2.GetModelStatusResponse.FromString(data)
    state_name = get_model_status_pb2.ModelVersionStatus.State.Name
    return {
        str(entry.version): {
            "state": state_name(entry.state),
            "error_code": entry.status.error_code,
            "error_message": unfill(entry.status.error_message),
        }
        for entry in response.model_version_status
    }
