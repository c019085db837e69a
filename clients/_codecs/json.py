"""Requests and answers as JSON, for REST."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from shortlist.clients import contract, errors
from shortlist.clients._arguments import shown
from shortlist.clients._codecs.requests import (
    ClassifyRequest,
    MetadataRequest,
    Outputs,
    PredictRequest,
    RegressRequest,
    Request,
    StatusRequest,
    Target,
)
from shortlist.clients._codecs.tensors import JsonTensor
from shortlist.clients._codecs.values import (
    all_plain,
    all_str,
    cast_array,
    check_kind,
    feature_values,
    flatten,
    is_array,
    nest,
)
from shortlist.clients.types import (
    Classification,
    Metadata,
    ModelStatus,
    Signature,
    State,
    TensorSpec,
    VersionStatus,
)
from shortlist.clients.wire.dtypes import by_name

__all__ = ["answer_of", "body_of", "path_of"]

_MAX_CONTAINERS: Final = 1_000_000
_UNCOUNTED: Final = 8 * 2**20  # bytes


def path_of(request: Request) -> str:
    """Return the path of the URL, percent-encoded.

    Raises:
        Unsupported: REST has no such call.
    """
    target = request.target
    if target is None:
        raise errors.Unsupported(
            "TensorFlow Serving's REST API cannot reload the configuration; use GrpcClient"
        )
    path = f"/v1/models/{quote(target.model, safe='')}"
    if target.version is not None:
        path += f"/versions/{target.version}"
    if target.label is not None and not isinstance(request, StatusRequest):
        path += f"/labels/{quote(target.label, safe='')}"
    if isinstance(request, StatusRequest):
        return path
    if isinstance(request, MetadataRequest):
        return f"{path}/metadata"
    verb = {PredictRequest: "predict", ClassifyRequest: "classify", RegressRequest: "regress"}
    return f"{path}:{verb[type(request)]}"


def body_of(request: Request) -> bytes | None:
    """Return the body to POST; `None` for a GET.

    Raises:
        ValueError: A value cannot be written as JSON.
    """
    if isinstance(request, PredictRequest):
        inputs = {name: _plain(name, i.value, i.dtype) for name, i in request.inputs.items()}
        return _dump({"signature_name": request.signature, "inputs": inputs})
    if isinstance(request, ClassifyRequest | RegressRequest):
        body: dict[str, Any] = {"examples": [_example(example) for example in request.examples]}
        if request.signature is not None:
            body["signature_name"] = request.signature
        if request.context is not None:
            body["context"] = _example(request.context)
        return _dump(body)
    return None


def _dump(body: object) -> bytes:
    # The server reads bare NaN and Infinity.
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        around = text[max(exc.start - 10, 0) : exc.end + 10]
        raise ValueError(f"text that is not valid Unicode: {around!r}") from exc


def _plain(name: str, value: Any, dtype_name: str | None) -> Any:
    """Return a value as JSON, checked against its type like the gRPC codec does."""
    dtype = by_name(dtype_name) if dtype_name is not None else None
    try:
        if is_array(value):
            if dtype is not None and dtype.kind != "s" and value.dtype.kind not in "OSU":
                value = cast_array(value, dtype)
            value = value.tolist()
        if type(value) is list and value and dtype_name == "DT_STRING" and all_str(value):
            return value
        shape, flat = flatten(value)
        if dtype is not None:
            check_kind(flat, dtype)
        if all_plain(flat):
            return nest(flat, shape)
    except ValueError as exc:
        raise ValueError(f"input {name!r}: {exc}") from exc
    return nest([_jsonable(name, item) for item in flat], shape)


def _jsonable(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"input {name!r}: REST cannot send {shown(value)}; use GrpcClient (--transport grpc)"
    )


def _example(features: Mapping[str, Any]) -> dict[str, Any]:
    example = {}
    for name, value in features.items():
        values = feature_values(name, value)
        plain = [_jsonable(name, item) for item in values]
        example[name] = plain[0] if len(plain) == 1 else plain
    return example


# --- answers --------------------------------------------------------------------


def answer_of(request: Request, content: bytes) -> Any:
    """Return the answer in a body, in the form that `requests` states.

    Raises:
        ProtocolError: The body is not JSON, or not what TensorFlow Serving sends.
    """
    # A list takes 20 times as much memory as `[],`. Counting takes a tenth of the parser's time.
    if len(content) > _UNCOUNTED and content.count(b"[") + content.count(b"{") > _MAX_CONTAINERS:
        raise errors.ProtocolError(
            f"{request.operation} was answered by more than {_MAX_CONTAINERS} lists and objects; "
            "ask for less at a time (Limits.batch_size)"
        )
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as exc:
        start = content[:80].decode("utf-8", "replace")
        raise errors.ProtocolError(
            f"{request.operation} was answered by {len(content)} bytes that are not JSON ({exc}): "
            f"{start!r}; is the server TensorFlow Serving?"
        ) from exc
    try:
        if isinstance(request, PredictRequest):
            return _outputs(request, body["outputs"])
        if isinstance(request, StatusRequest):
            return _status(request.target, body)
        if isinstance(request, MetadataRequest):
            return _metadata(request.target, body)
        if isinstance(request, ClassifyRequest):
            return [_classification(row) for row in body["results"]]
        return [_number(value) for value in body["results"]]
    except (
        AttributeError,
        IndexError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as exc:
        raise errors.ProtocolError(
            f"{request.operation} was answered by JSON of another form "
            f"({type(exc).__name__}: {exc}); is the server TensorFlow Serving?"
        ) from exc


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _outputs(request: PredictRequest, outputs: Any) -> Outputs:
    # A single output comes without its name.
    if not isinstance(outputs, dict) or set(outputs) == {"b64"}:
        if request.only_output is None:
            raise ValueError("a single output without a name")
        outputs = {request.only_output: outputs}
    tensors = {name: JsonTensor(_unb64(value)) for name, value in outputs.items()}
    version = tensors.get(contract.SERVABLE_VERSION)
    answered = None
    if version is not None:
        flat = flatten(version.value())[1]
        answered = int(flat[0]) if flat else None
    return Outputs(tensors=tensors, version=answered)


def _unb64(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
        return [_unb64(item) for item in value]
    return value


def _classification(row: Any) -> Classification:
    # [label, score] pairs; a bare label or a bare score if the signature has only one.
    labels, scores = [], []
    for item in row:
        label, score = item if isinstance(item, list) else (item, 0.0)
        labels.append(str(label))
        scores.append(_number(score))
    return Classification(labels=tuple(labels), scores=tuple(scores))


def _status(target: Target, body: Any) -> ModelStatus:
    versions = []
    for entry in body["model_version_status"]:
        status = entry.get("status") or {}
        code = status.get("error_code", "OK")
        versions.append(
            VersionStatus(
                version=int(entry.get("version", 0)),
                state=State.__members__.get(entry.get("state", "UNKNOWN"), State.UNKNOWN),
                error_code=code,
                error_message=None if code == "OK" else status.get("error_message", ""),
            )
        )
    return ModelStatus(model=target.model, versions=tuple(versions))


def _metadata(target: Target, body: Any) -> Metadata:
    version = body.get("model_spec", {}).get("version") or None
    signatures = body["metadata"]["signature_def"]["signature_def"]
    return Metadata(
        model=target.model,
        version=None if version is None else int(version),
        signatures={
            name: Signature(
                inputs={key: _tensor_spec(info) for key, info in signature["inputs"].items()},
                outputs={key: _tensor_spec(info) for key, info in signature["outputs"].items()},
                method_name=signature.get("method_name", ""),
            )
            for name, signature in signatures.items()
        },
    )


def _tensor_spec(info: Mapping[str, Any]) -> TensorSpec:
    proto = info.get("tensor_shape", {})
    shape = None
    if not proto.get("unknown_rank", False):
        sizes = [int(dim["size"]) for dim in proto.get("dim", [])]
        shape = tuple(size if size >= 0 else None for size in sizes)
    return TensorSpec(
        dtype=info.get("dtype", "DT_INVALID"), shape=shape, tensor_name=info.get("name", "")
    )
